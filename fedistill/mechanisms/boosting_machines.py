"""InterpretML's DP boosting machines, shown public values and bounded records only.

What InterpretML would take from the rows, and where it comes from here:

- the number of rows, in the threshold that merges bins: rows are padded to the public total
  max(M + 9.5 scales of its noise, `rows-at-least`), with rows outside every histogram and every
  bag. Should the noise fall short of the records (probability below 2^-64, which no delta here
  could show), the site trains on none.
- the classes: two public rows in the middle of all columns, one of each class, are always there.
- categories: which are present decides the bins of `nominal` columns, so all columns are
  `continuous`; a category becomes 0/1 columns by the public schema.
- bounds and missing values: columns, or the numbers of an embedding, are ranks among the proxy
  rows' values, within 0 to 1; a missing value is 1/2, with a 0/1 column where the proxy set has
  both.
- the mean over bags is weighted by the number of rows, which may move last bits: it is not used.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.errors import PolicyRefusal

Floats = npt.NDArray[np.float64]

ROUNDS = 300
LEARNING_RATE = 0.01
BINNING_SHARE = 0.1

_OUTSIDE = 2.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What each machine is given.

    Attributes:
        epsilon: In InterpretML's own terms, at `delta`.
        delta: See above.
        num_classes: Classes of the task; beyond two, there is a machine for each.
    """

    epsilon: float
    delta: float
    num_classes: int


def train_and_answer(
    rows: Floats, labels: npt.NDArray[np.int64], asked: Floats, budget: Budget, *, total: int
) -> Floats:
    """Logits (num_asked, num_classes) of machines that learned from the rows.

    Args:
        rows: (num_rows, num_columns) within 0 to 1.
        labels: (num_rows,) in 0..num_classes-1.
        asked: (num_asked, num_columns) likewise.
        budget: What the machines are given, and how many classes there are.
        total: How many rows InterpretML shall see, public; with more rows than that, none is used.
    """
    if len(rows) > total:
        rows, labels = rows[:0], labels[:0]
    num_classes = budget.num_classes
    if num_classes == 2:
        scores = _scores(rows, labels, asked, budget, total)
        return np.stack([np.zeros_like(scores), scores], axis=1)
    against_rest = [
        _scores(rows, (labels == each).astype(np.int64), asked, budget, total)
        for each in range(num_classes)
    ]
    # log sigmoid(score): the logarithm of each machine's probability that it is its class.
    return -np.logaddexp(0.0, -np.stack(against_rest, axis=1))


def noise_multipliers(epsilon: float, delta: float, num_columns: int) -> tuple[float, float]:
    """Of a histogram and of a boosting step of a machine that is given this epsilon.

    As `DPExplainableBoostingClassifier` computes them, over the sensitivity.
    """
    from interpret.utils._privacy import calc_gdp_noise_multi

    binning = BINNING_SHARE * epsilon
    return (
        float(calc_gdp_noise_multi(num_columns, binning, delta / 2)),
        float(calc_gdp_noise_multi(num_columns * ROUNDS, epsilon - binning, delta / 2)),
    )


def _scores(
    rows: Floats, labels: npt.NDArray[np.int64], asked: Floats, budget: Budget, total: int
) -> Floats:
    """Log-odds of class 1 by one machine, (num_asked,)."""
    num_columns = asked.shape[1]
    middle = np.full((2, num_columns), 0.5)
    padding = np.full((total - len(rows), num_columns), _OUTSIDE)
    bag = np.zeros(total + 2, np.int8)
    bag[: len(rows) + 2] = 1
    machine = _machine(budget, num_columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        machine.fit(
            np.concatenate([middle, rows, padding]),
            np.concatenate([[0, 1], labels, np.zeros(len(padding), np.int64)]),
            bags=bag[:, None],
        )
    _check_noise(machine, budget, num_columns)
    # The mean over bags divides by the number of rows: take the one bag there is.
    machine.term_scores_ = [scores[0] for scores in machine.bagged_scores_]
    machine.intercept_ = np.atleast_1d(machine.bagged_intercept_[0])
    scores: Floats = np.asarray(machine.decision_function(asked), np.float64).reshape(-1)
    return scores


def _machine(budget: Budget, num_columns: int) -> Any:
    from interpret.privacy import DPExplainableBoostingClassifier

    return DPExplainableBoostingClassifier(
        feature_types=["continuous"] * num_columns,
        privacy_bounds=np.tile([0.0, 1.0], (num_columns, 1)),
        epsilon=budget.epsilon,
        delta=budget.delta,
        composition="gdp",
        bin_budget_frac=BINNING_SHARE,
        max_rounds=ROUNDS,
        learning_rate=LEARNING_RATE,
        outer_bags=1,
        validation_size=0,
        random_state=None,
        n_jobs=1,
    )


def _check_noise(machine: Any, budget: Budget, num_columns: int) -> None:
    """Public: another version of InterpretML might add less noise than was charged for."""
    planned = noise_multipliers(budget.epsilon, budget.delta, num_columns)
    made = machine.noise_scale_binning_, machine.noise_scale_boosting_ / LEARNING_RATE
    if not np.allclose(made, planned, rtol=1e-9):
        raise PolicyRefusal(
            f"noise of InterpretML {made} must be the planned {planned}: install the version that "
            "fedistill names"
        )
