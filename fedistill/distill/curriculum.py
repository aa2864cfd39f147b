"""Rows in the order of how sure their target is: easy ones first.

Bengio et al. 2009, "Curriculum Learning"; the growing share of the easiest rows is the pacing of
Hacohen and Weinshall 2019, "On The Power of Curriculum Learning in Training Deep Networks",
section 3. Post-processing of the target: no private row is read.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.errors import ConfigError
from fedistill.labels import EnsembleTarget, Floats


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How the share of rows in use grows.

    Attributes:
        first_share: Share of the rows at the start, in (0, 1].
        full_at: Progress from which all rows are in use, in (0, 1].
    """

    first_share: float = 0.3
    full_at: float = 0.5

    def __post_init__(self) -> None:
        for name in ("first_share", "full_at"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} must be above 0 and at most 1: use 1 for no "
                    "curriculum"
                )

    def share(self, progress: float) -> float:
        """Share of the rows in use; it grows linearly.

        Args:
            progress: Share of the training that is done, in [0, 1].
        """
        grown = min(1.0, progress / self.full_at)
        return self.first_share + (1 - self.first_share) * grown


def difficulty_by_noise(target: EnsembleTarget) -> Floats:
    """Root mean square of a row's std over its log-odds, in nats, (num_proxy,)."""
    noise: Floats = np.sqrt((target.std**2).mean(axis=1))
    return noise


def difficulty_by_entropy(target: EnsembleTarget) -> Floats:
    """Entropy of a row's class probabilities, in nats, (num_proxy,)."""
    likely = target.probabilities
    logs = np.log(np.where(likely > 0, likely, 1.0))
    entropy: Floats = -(likely * logs).sum(axis=1)
    return entropy


def easiest(difficulty: Floats, share: float) -> npt.NDArray[np.int64]:
    """The easiest rows, easiest first: at least one, rows of equal difficulty in their order.

    Args:
        difficulty: (num_rows,).
        share: Of the rows, in (0, 1], rounded up.
    """
    order: npt.NDArray[np.int64] = np.argsort(difficulty, kind="stable")
    return order[: max(1, math.ceil(share * len(difficulty)))]


def curriculum_weights(difficulty: Floats, share: float) -> Floats:
    """Weights (num_rows,) of mean 1: equal for the easiest share of the rows, zero for the others.

    For a loop that draws from all rows; `easiest` is for one that draws from some.
    """
    weights = np.zeros(len(difficulty))
    chosen = easiest(difficulty, share)
    weights[chosen] = len(difficulty) / len(chosen)
    return weights
