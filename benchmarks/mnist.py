"""Digits without a private label leaving: MNIST on PATE's split, beside published figures.

    python -m benchmarks.mnist --data-dir DIR

DIR holds `mnist.npz` (x_train, y_train, x_test, y_test). As in PATE (Papernot et al. 2018), the
first 9,000 test images are public and unlabelled, and the last 1,000 measure the student. Three
sites hold 20,000 training images each. An encoder learns from the 9,000 public images alone; sites
answer on its embeddings; the answers are spread over neighbouring public images, and a student that
starts as the encoder learns from them, under `distil_images`. Every seed has its own encoder, noise
and student. Nothing is chosen by a label: AGREES is the share of public images on which the student
says what its target says, and is what a coordinator may choose a mechanism by.

Each way's epsilon holds at delta 1e-5, add/remove of one image, and depends on no data. With shared
noise it holds against the server while as many sites as `--honest` says are honest; with
`trust = "none"` against everybody. Rows are embedded beforehand and in batches, where the product
embeds each alone: their bits differ, and nothing else does.

On one GPU the whole table takes minutes; `--jobs` seeds run side by side.
"""

import argparse
import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.data.encoder import Encoder
from fedistill.distill.image_trainer import ImageRecipe, distil_images, predict_images
from fedistill.distill.noise_aware import propagate_labels
from fedistill.distill.target import build_ensemble
from fedistill.features import proxy_basis
from fedistill.features.self_supervised import ImageEncoder, Recipe, pretrain, public_images
from fedistill.labels import EnsembleTarget, LabelQuestion
from fedistill.mechanisms.summed import nothing_opened, summable

DELTA = 1e-5
EPSILONS = (0.1, 0.5, 1.0)
CLASSES = 10
NUM_SITES = 3
PUBLIC = 9_000
ROWS_AT_LEAST = 10_000
"""What each site declares of itself."""

PUBLISHED = (
    ("PATE, LNMax (Papernot et al. 2018)", 2.04, 98.0, "data-dependent, 250 teachers"),
    ("PATE, Confident-GNMax (Papernot et al. 2018)", 1.97, 98.5, "data-dependent, 250 teachers"),
    ("Private-kNN (Zhu et al. 2020)", 0.47, 98.8, "data-dependent, one data owner"),
)
"""As their authors state them: name, epsilon at delta 1e-5, accuracy in percent, and what for."""


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The split. Images are rows of 784 pixels.

    Attributes:
        public: (9000, 784) float32.
        sites: Images and labels of each site.
        scored: The same of the images that measure.
    """

    public: npt.NDArray[np.float32]
    sites: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]], ...]
    scored: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How sites answer."""

    mechanism: str
    trust: str
    epsilon: float
    rounds: int = 1
    cells: int = 300
    partitions: int = 1

    @property
    def name(self) -> str:
        """As the table prints it."""
        return self.mechanism


@dataclass(frozen=True, kw_only=True)
class Result:
    """Shares in [0, 1]."""

    accuracy: float
    agreement: float


def ways() -> Iterator[Way]:
    """All that is measured."""
    for trust in ("secagg", "none"):
        for epsilon in EPSILONS:
            asked = partial(Way, trust=trust, epsilon=epsilon)
            faint = epsilon < 0.5
            yield asked(mechanism="votes", cells=300 if faint else 400, partitions=1 if faint else 8)
            yield asked(mechanism="dp-probe")
            yield asked(mechanism="corrections", rounds=4)


def read_digits(file: Path, limit: int) -> Digits:
    """The split; `limit` bounds the images of each part, for a try."""
    with np.load(file) as archive:
        part = {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    rows = {name: part[name].reshape(len(part[name]), -1).astype(np.float32) for name in part}
    order = np.random.default_rng(0).permutation(len(rows["x_train"]))
    sites = tuple(
        (rows["x_train"][chosen[:limit]], part["y_train"][chosen[:limit]].astype(np.int64))
        for chosen in np.array_split(order, NUM_SITES)
    )
    return Digits(
        public=rows["x_test"][:PUBLIC][:limit],
        sites=sites,
        scored=(rows["x_test"][PUBLIC:], part["y_test"][PUBLIC:].astype(np.int64)),
    )


class Student(nn.Module):
    """The encoder's network and one layer more."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.last = nn.Linear(encoder.dimensions, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.last(self.encoder.represent(images))
        return logits


def given() -> object:
    """The encoder of rows that are embeddings already."""
    return lambda rows: rows


@torch.inference_mode()
def embeddings(encoder: ImageEncoder, rows: npt.NDArray[np.float32], device: str) -> Tensor:
    """(num_rows, dimensions) float32, in batches."""
    encoder.to(device)
    images = torch.from_numpy(rows).reshape(len(rows), 1, encoder.shape.side, -1)
    parts = [encoder(part.to(device)).cpu() for part in images.split(4096)]
    encoder.cpu()
    return torch.cat(parts)


def answer(way: Way, sites: Sequence[LabelledRows], proxy: ProxySet, honest: int) -> EnsembleTarget:
    """The denoised target of all sites' summed answers."""
    question = LabelQuestion(
        mechanism=way.mechanism,
        epsilon=way.epsilon,
        delta=DELTA,
        num_classes=CLASSES,
        proxy_sha256=proxy.sha256,
        solver="moment",
        cells=way.cells,
        partitions=way.partitions,
        trust=way.trust,
        min_honest_sites=honest,
        rounds=way.rounds,
    )
    asked, state = summable(way.mechanism), nothing_opened(question, proxy)
    for number in range(1, way.rounds + 1):
        plan = asked.plan_sum(
            replace(question, round=number),
            proxy,
            rows_at_least=ROWS_AT_LEAST,
            num_sites=len(sites),
        )
        sent = [asked.noised_integers(site, proxy, plan, state.weights) for site in sites]
        total = np.sum(sent, axis=0)
        state = asked.open_sum(total, proxy, plan, num_sites=len(sites), before=state)
    release, response = asked.answer_sum(state, proxy, plan)
    return build_ensemble([release], [response], proxy_basis(proxy)).target


def measure(
    seed: int, *, file: Path, epochs: int, student_epochs: int, limit: int, honest: int, device: str
) -> dict[Way, Result]:
    """All ways with one encoder."""
    digits = read_digits(file, limit)
    encoder = pretrain(digits.public, seed=seed, recipe=Recipe(epochs=epochs), device=device)
    names = tuple(f"embedding_{number}" for number in range(encoder.dimensions))
    proxy = ProxySet(
        schema=numbers(names),
        rows=embeddings(encoder, digits.public, device).numpy(),
        encoder=Encoder(import_path="benchmarks.mnist:given"),
    )
    sites = [
        LabelledRows(
            columns=names,
            rows=embeddings(encoder, rows, device).numpy(),
            labels=labels,
            num_classes=CLASSES,
        )
        for rows, labels in digits.sites
    ]
    images = public_images(digits.public)
    scored = torch.from_numpy(digits.scored[0]).reshape(-1, *images.shape[1:])
    found = {}
    for way in ways():
        target = answer(way, sites, proxy, honest)
        spread = propagate_labels(proxy_basis(proxy).values, target.probabilities)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = Student(encoder)
        recipe = ImageRecipe(epochs=student_epochs)
        distil_images(
            student, images, torch.from_numpy(spread), seed=seed, recipe=recipe, device=device
        )
        agreed = predict_images(student, images).argmax(dim=1).numpy() == spread.argmax(axis=1)
        right = predict_images(student, scored).argmax(dim=1).numpy() == digits.scored[1]
        found[way] = Result(accuracy=float(right.mean()), agreement=float(agreed.mean()))
    return found


def shown(percent: npt.NDArray[np.float64]) -> str:
    """Mean and, of more than one, its standard error."""
    if len(percent) == 1:
        return f"{percent[0]:.2f}"
    return f"{percent.mean():.2f} ± {percent.std(ddof=1) / np.sqrt(len(percent)):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of mnist.npz")
    parser.add_argument("--seeds", type=int, default=5, help="encoders, noises and students")
    parser.add_argument("--epochs", type=int, default=500, help="of the encoder")
    parser.add_argument("--student-epochs", type=int, default=60, help="of each student")
    parser.add_argument("--honest", type=int, default=2, help="sites whose noise is counted on")
    parser.add_argument("--jobs", type=int, default=5, help="seeds that run side by side")
    parser.add_argument("--limit", type=int, default=10**9, help="images of each part, for a try")
    arguments = parser.parse_args()
    work = partial(
        measure,
        file=arguments.data_dir / "mnist.npz",
        epochs=arguments.epochs,
        student_epochs=arguments.student_epochs,
        limit=arguments.limit,
        honest=arguments.honest,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    console = Console(highlight=False)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(work, range(arguments.seeds)))
    table = Table("trust", "mechanism", "epsilon", "accuracy %", "agrees %", box=None)
    for way in ways():
        accuracy = np.array([run[way].accuracy for run in runs]) * 100
        agreement = np.array([run[way].agreement for run in runs]) * 100
        table.add_row(
            way.trust, way.name, f"{way.epsilon:g}", shown(accuracy), f"{agreement.mean():.2f}"
        )
    console.print(table)
    published = Table("published", "epsilon", "accuracy %", "", box=None)
    for name, epsilon, percent, remark in PUBLISHED:
        published.add_row(name, f"{epsilon:g}", f"{percent:.1f}", remark)
    console.print(published)


if __name__ == "__main__":
    main()
