"""What `dp-probe` and `corrections` sum over records: public features times clipped residuals.

A record's integers depend on that record, on the size of its unit and on public weights alone
(PRIVACY rule 8), and have an exact L2 norm of at most the clip. `dp_probe` states the sensitivity.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows
from fedistill.features import FEATURE_STEP, ProxyBasis
from fedistill.labels import Floats
from fedistill.mechanisms.probe_rounds import GRADIENT_STEP, RESIDUAL_STEP
from fedistill.mechanisms.unit_weights import unit_sizes
from fedistill.privacy.grid import exact_matmul, from_grid, squared_norms, to_grid

Integers = npt.NDArray[np.int64]

_WEIGHT_STEP = 2.0**-20
_LARGEST_WEIGHT = 2.0**11
_BLOCK_ROWS = 2**18


@dataclass(frozen=True, kw_only=True)
class Records:
    """Rows that may contribute.

    Attributes:
        features: (num_rows, num_features), 2**16 stands for 1.
        labels: (num_rows,) class indices.
        unit_sizes: (num_rows,) how many rows the row's unit has among these; at least 1.
        num_units: How many units there are.
    """

    features: Integers
    labels: Integers
    unit_sizes: Integers
    num_units: int


def records_of(rows: LabelledRows, basis: ProxyBasis, num_classes: int) -> Records:
    """Rows with a possible label and with features; others contribute nothing (PRIVACY rule 3)."""
    features = basis.map.transform(rows.rows)
    possible = (rows.labels >= 0) & (rows.labels < num_classes)
    valid = np.flatnonzero(possible & features.any(axis=1))
    kept = rows.take(valid)
    return Records(
        features=features[valid],
        labels=kept.labels,
        unit_sizes=unit_sizes(kept.units, np.ones(len(valid), np.bool_)),
        num_units=kept.num_units,
    )


def clipped_residuals(records: Records, weights: Floats, *, clip: int) -> Integers:
    """Each record's residual e_y - p, its unit's phi r^T together at most `clip` in L2 norm.

    Args:
        records: Rows that may contribute.
        weights: (num_features, num_classes).
        clip: In steps of 2^-30.

    Returns:
        (num_rows, num_classes) int64, 2**14 stands for 1. Row i depends on record i, on the size of
        its unit and on `weights`; columns are combined one by one, never across rows.
    """
    # The bound is public and keeps the products exact, so no private row can make this raise.
    bounded = np.clip(weights, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
    logits = exact_matmul(records.features, to_grid(bounded, _WEIGHT_STEP))
    residuals = -_softmax_by_column(from_grid(logits, FEATURE_STEP * _WEIGHT_STEP))
    residuals[np.arange(len(residuals)), records.labels] += 1.0
    squared_features = squared_norms(records.features)
    norms = np.sqrt(_sum_of_columns(residuals * residuals))
    norms *= np.sqrt(squared_features) * FEATURE_STEP
    factor = np.minimum(1.0, clip * GRADIENT_STEP / np.maximum(norms, 1e-12))
    factor /= records.unit_sizes
    integers = to_grid(residuals * factor[:, None], RESIDUAL_STEP)
    within = squared_features * squared_norms(integers) <= (clip // records.unit_sizes) ** 2
    kept: Integers = integers * within[:, None]
    return kept


def sum_of_contributions(features: Integers, residuals: Integers) -> Integers:
    """Sum over rows of phi r^T, (num_features, num_classes), in blocks that stay exact."""
    total = np.zeros((features.shape[1], residuals.shape[1]), np.int64)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        total += exact_matmul(features[block].T, residuals[block])
    return total


def _softmax_by_column(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: Floats = exponentials / _sum_of_columns(exponentials)[:, None]
    return share


def _sum_of_columns(values: Floats) -> Floats:
    """Row sums in a fixed order, whatever the number of rows."""
    total = np.zeros(len(values))
    for column in values.T:
        total = total + column
    return total
