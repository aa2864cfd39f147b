"""The contract that every teacher keeps."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class TeacherModel(Protocol):
    """An ordinary model. What it learns stays at the site: its answers are not private.

    Two models share no state, and what one learns is a function of its own rows alone, to the
    last bit: that is what `sharded` counts on. Rows may be few, of one class, or none.
    """

    def fit(self, features: Features, labels: Labels) -> Self:
        """Learn from scratch.

        Args:
            features: (num_rows, num_features), expanded columns, NaN where a value is missing; or
                embeddings, where the proxy set has an encoder.
            labels: (num_rows,) in 0..num_classes-1; classes may be missing.
        """
        ...

    def predict_proba(self, features: Features) -> Floats:
        """Probabilities of all classes, (num_rows, num_classes)."""
        ...


@runtime_checkable
class TeachesMany(Protocol):
    """A teacher that trains many of its kind at once, faster than one after the other."""

    def fit_many(self, shards: Sequence[tuple[Features, Labels]]) -> Sequence[TeacherModel]:
        """A fitted model for each shard, each a function of its own shard's rows alone."""
        ...


def smoothed_shares(labels: Labels, num_classes: int) -> Floats:
    """Shares of the classes with one row of each added, (num_classes,); uniform without rows.

    What a teacher answers that has nothing to learn from.
    """
    counts = np.bincount(labels, minlength=num_classes) + 1.0
    shares: Floats = counts / counts.sum()
    return shares


def without_infinities(features: Features) -> Floats:
    """Features with infinite values as missing."""
    values = features.astype(np.float64)
    values[np.isinf(values)] = np.nan
    return values
