"""Training a student on labelled and augmented proxy rows: one visible loop.

The same loop distils the ensemble target into a fresh student and, after each pruning step, the
uncompressed student into the pruned one. Its examples are proxy rows and copies of them in which
some entries were swapped within their column, so that the student also learns the labelling
function between the proxy rows; whoever labels the copies must be a function of raw rows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fedistill.data import ProxySet
from fedistill.distill.encoding import Rows
from fedistill.distill.losses import log_odds_error
from fedistill.distill.network_students import make_student
from fedistill.distill.progress import Progress
from fedistill.distill.students import Student, log_odds
from fedistill.labels import EnsembleTarget

SMALLEST_SPREAD = 1e-6
"""Below it a target is constant, in nats: there is nothing to standardise."""

Labeller = Callable[[Rows], npt.NDArray[np.float64]]
"""Raw rows (n, num_columns) to log-odds against class 0, (n, num_classes - 1)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the loop. It takes at least `epochs` passes over the proxy rows and `steps`."""

    epochs: int = 40
    steps: int = 2500
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.99

    def num_steps(self, num_rows: int) -> int:
        """Optimizer steps for `num_rows` proxy rows."""
        return max(self.epochs * math.ceil(num_rows / self.batch), self.steps)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Column-swap copies: each entry is replaced with probability `swap` by another row's.

    Each row is copied `copies` times, or as often as it takes to make `at_least` copies in all: few
    proxy rows alone do not show a student what the target says between them.
    """

    swap: float = 0.3
    copies: int = 3
    at_least: int = 20_000

    def copies_of(self, num_rows: int) -> int:
        """How often each of `num_rows` rows is copied."""
        return max(self.copies, math.ceil(self.at_least / num_rows))


@dataclass(frozen=True)
class Examples:
    """What the loop draws from.

    Attributes:
        rows: (num_examples, num_columns) float32, raw.
        log_odds: (num_examples, num_classes - 1) float32, against class 0.
        weights: The same shape: how much each entry counts, of mean 1.
    """

    rows: Tensor
    log_odds: Tensor
    weights: Tensor


def train_student(
    proxy: ProxySet,
    target: EnsembleTarget,
    *,
    relabel: Labeller | None = None,
    student: str = "mlp",
    seed: int,
    progress: Progress | None = None,
    recipe: Recipe = Recipe(),
    augmentation: Augmentation = Augmentation(),
) -> Student:
    """Distil the ensemble's target into a fresh student.

    Squared error on standardised log-odds; entries count by 1 / (1 + noise variance) where the
    target's `std` varies. Equal seed, rows and target give equal weights on one machine with one
    number of threads.

    Args:
        proxy: Its schema says what the columns mean, its rows are learned from.
        target: Its log-odds and std are of shape (num_proxy, num_classes - 1).
        relabel: The denoised target as a function of raw rows; labels the augmented copies.
            Without it the student sees the proxy rows alone.
        student: A name that `make_student` knows.
        seed: Of initial weights, augmentation and batches.
        progress: Called with steps done and steps in all.
        recipe: Settings of the loop.
        augmentation: Settings of the copies.

    Raises:
        ConfigError: See `make_student`.
        DataError: No proxy column varies.
    """
    random = np.random.default_rng(seed)
    mean = target.log_odds.mean(axis=0)
    spread = target.log_odds.std(axis=0)
    scale = np.where(spread > SMALLEST_SPREAD, spread, 1.0)
    weights = 1 / (1 + (target.std / scale) ** 2)
    rows, labels = proxy.rows, target.log_odds
    if relabel is not None:
        copies = swap_columns(proxy.rows, augmentation, random)
        rows = np.concatenate([rows, copies])
        labels = np.concatenate([labels, relabel(copies)])
        typical = np.broadcast_to(weights.mean(axis=0), (len(copies), weights.shape[1]))
        weights = np.concatenate([weights, typical])
    examples = make_examples(rows, (labels - mean) / scale, weights)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = make_student(student, proxy, target.log_odds.shape[1] + 1)
    optimise(
        fresh,
        examples,
        recipe,
        num_steps=recipe.num_steps(len(proxy.rows)),
        seed=seed,
        progress=progress,
    )
    _restore_scale(fresh.last, mean, scale)
    return fresh.eval()


def optimise(
    student: Student,
    examples: Examples,
    recipe: Recipe,
    *,
    num_steps: int,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Fit `student.body` in place to the examples; the moving average of the weights is kept."""
    generator = torch.Generator().manual_seed(seed)
    body = student.body
    average = AveragedModel(body, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(
        body.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=num_steps
    )
    order = torch.empty(0, dtype=torch.int64)
    for step in range(num_steps):
        if len(order) < min(recipe.batch, len(examples.rows)):
            order = torch.randperm(len(examples.rows), generator=generator)
        batch, order = order[: recipe.batch], order[recipe.batch :]

        # Encoded anew each time: the encoded table would be many times the raw one's size.
        with torch.no_grad():
            codes = student.encoding(examples.rows[batch])
        answers = log_odds(body(codes))
        loss = log_odds_error(answers, examples.log_odds[batch], examples.weights[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        average.update_parameters(body)
        if progress is not None:
            progress(step + 1, num_steps)
    body.load_state_dict(average.module.state_dict())


def swap_columns(rows: Rows, augmentation: Augmentation, random: np.random.Generator) -> Rows:
    """Copies of all rows with entries swapped in from random rows: (num_copies, num_columns)."""
    copies = np.tile(rows, (augmentation.copies_of(len(rows)), 1))
    row, column = np.nonzero(random.random(copies.shape, dtype=np.float32) < augmentation.swap)
    copies[row, column] = rows[random.integers(len(rows), size=len(row)), column]
    return copies


def make_examples(
    rows: Rows, labels: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> Examples:
    """Examples as float32 tensors; weights are brought to mean 1."""
    return Examples(
        torch.tensor(rows),
        torch.from_numpy(labels.astype(np.float32)),
        torch.from_numpy((weights / weights.mean()).astype(np.float32)),
    )


@torch.no_grad()
def _restore_scale(
    last: nn.Linear, mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
) -> None:
    """Fold "times scale plus mean" of the log-odds into the last layer.

    Logits become centred over classes: with differences D (num_classes - 1, num_classes), the
    lift L that puts a zero before log-odds, and centring C, the new logits of z are
    C L (scale D z + mean).
    """
    classes = last.out_features
    differences = np.eye(classes)[1:] - np.eye(classes)[:1]
    centred_lift = (np.eye(classes) - 1 / classes)[:, 1:]
    mix = torch.from_numpy(centred_lift * scale @ differences)
    shift = torch.from_numpy(centred_lift @ mean)
    last.weight.copy_(mix @ last.weight.double())
    last.bias.copy_(mix @ last.bias.double() + shift)
