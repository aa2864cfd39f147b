"""`mlp`: a small neural network; many shards train at once, as one batch of `torch.func.vmap`.

Every step works on tensors whose shapes are public: (shards, rows a step, features). A shard with
fewer rows repeats them, one with more is gone through in turn. Were shards padded to the largest
of them, a record in that one would change the shapes of all, hence the last bits of every teacher
(PRIVACY rule 8). Optimizer and loss are elementwise, so no shard's gradient meets another's.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from fedistill.teachers.scaling import Scaling
from fedistill.teachers.teacher import (
    Features,
    Floats,
    Labels,
    smoothed_shares,
    without_infinities,
)

if TYPE_CHECKING:
    import torch

STEPS = 100
ROWS_A_STEP = 64
HIDDEN = 16
LEARNING_RATE = 0.02
WEIGHT_DECAY = 0.03
SHARDS_AT_ONCE = 250
"""Bounds memory; public, since the number of shards is."""


class MLP:
    """One hidden layer, trained by AdamW on the cross-entropy; see `TeacherModel`."""

    _parameters: "dict[str, torch.Tensor]"
    _scaling: Scaling
    _shares: Floats
    _taught: bool

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes

    def fit(self, features: Features, labels: Labels) -> Self:
        """Learn from scratch; see `TeacherModel`."""
        self._learn([self], [(features, labels)])
        return self

    def fit_many(self, shards: Sequence[tuple[Features, Labels]]) -> "list[MLP]":
        """A fitted model for each shard, each a function of its own shard's rows alone."""
        models = [MLP(self._num_classes) for _ in shards]
        for start in range(0, len(shards), SHARDS_AT_ONCE):
            batch = slice(start, start + SHARDS_AT_ONCE)
            self._learn(models[batch], shards[batch])
        return models

    def predict_proba(self, features: Features) -> Floats:
        """Probabilities, (num_rows, num_classes)."""
        if not self._taught:
            return np.tile(self._shares, (len(features), 1))
        import torch

        inputs = torch.from_numpy(self._scaled(features))
        with torch.no_grad():
            model = network(inputs.shape[1], self._num_classes)
            logits = torch.func.functional_call(model, self._parameters, (inputs,))
            return torch.softmax(logits.double(), dim=1).numpy()

    def _learn(self, models: "Sequence[MLP]", shards: Sequence[tuple[Features, Labels]]) -> None:
        rows = [model._prepare(*shard) for model, shard in zip(models, shards, strict=True)]
        fitted = train_together(rows, self._num_classes)
        for number, model in enumerate(models):
            model._parameters = {name: stack[number] for name, stack in fitted.items()}

    def _prepare(self, features: Features, labels: Labels) -> tuple[Features, Labels]:
        """Scaled rows; one empty row stands for none, so that every shard has a place."""
        self._shares = smoothed_shares(labels, self._num_classes)
        self._taught = len(np.unique(labels)) > 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._scaling = Scaling.fit(without_infinities(features))
        if not len(labels):
            return np.zeros((1, features.shape[1]), np.float32), np.zeros(1, np.int64)
        return self._scaled(features), labels

    def _scaled(self, features: Features) -> Features:
        return self._scaling.transform(without_infinities(features)).astype(np.float32)


def train_together(
    shards: Sequence[tuple[Features, Labels]], num_classes: int
) -> "dict[str, torch.Tensor]":
    """Parameters of a network for each shard, stacked: (num_shards, ...) by name.

    Args:
        shards: Features (num_rows, num_features), finite, and labels (num_rows,); at least a row.
        num_classes: Classes of the task.
    """
    import torch

    sizes = torch.tensor([len(labels) for _, labels in shards])
    starts = torch.cumsum(sizes, 0) - sizes
    inputs = torch.from_numpy(np.concatenate([features for features, _ in shards]))
    targets = torch.from_numpy(np.concatenate([labels for _, labels in shards]))
    orders = [reading_order(len(labels)) for _, labels in shards]
    shuffled = starts.repeat_interleave(sizes) + torch.cat(orders)
    model = network(inputs.shape[1], num_classes)
    parameters = {
        name: value.detach().expand(len(shards), *value.shape).clone().requires_grad_()
        for name, value in model.named_parameters()
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    forward = torch.func.vmap(partial(torch.func.functional_call, model))
    for step in range(STEPS):
        turn = (step * ROWS_A_STEP + torch.arange(ROWS_A_STEP)) % sizes[:, None]
        rows = shuffled[starts[:, None] + turn]
        logits = forward(parameters, inputs[rows])
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[rows].flatten(), reduction="sum"
        )
        optimizer.zero_grad()
        (loss / ROWS_A_STEP).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach() for name, value in parameters.items()}


def network(num_features: int, num_classes: int) -> "torch.nn.Module":
    """The same first weights for all; the caller's generator is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(num_features, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, num_classes),
        )


def reading_order(num_rows: int) -> "torch.Tensor":
    """The order in which rows are gone through: rows may come sorted."""
    import torch

    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))
