"""The integer grid: from floats to int64, and exact arithmetic on it.

Sensitivity is a statement about integers here. A record's integers depend on that record and on
public state alone: float matrix products across rows were seen to change other rows' last bits when
one row left, so every product before the sum is exact (`exact_matmul`), and every rounding is done
row by row, toward zero.

Functions are total in the values of private rows (a bad value becomes zero, a wild one is clamped),
and raise only for what the caller sets: shapes, steps, bounds.
"""

import math

import numpy as np
import numpy.typing as npt

from fedistill.labels import Codes, Floats

Integers = npt.NDArray[np.int64]

EXACT = 2**53
"""float64 holds every integer below this, and sums of such are exact in any order."""

LABEL_BOUND = 8.0
"""Log-odds of labels are clamped to +-8 nats (probability 0.99966): public, not seen from data."""

LARGEST_CODE = 32767
"""Codes of labels are int16 within +- this."""

LABEL_SCALE = LABEL_BOUND / LARGEST_CODE
"""The step of the grid of labels, in nats: 0.00024. Public and fixed."""


def to_grid(values: Floats, step: float) -> Integers:
    """`values / step` rounded toward zero, any shape, int64.

    Entries become at most 2**53 - 1 in size (clamped), NaN becomes 0. Because `step` is a power of
    two the division is exact, so no entry and no norm grows: |result * step| <= |values|.

    Raises:
        ValueError: `step` is not a positive power of two.
    """
    if not 0 < step < math.inf or math.frexp(step)[0] != 0.5:
        raise ValueError(f"step={step} must be a power of two")
    with np.errstate(over="ignore"):
        scaled = np.asarray(values, dtype=np.float64) / step
    bound = float(EXACT - 1)
    clamped = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=bound, neginf=-bound), -bound, bound)
    return np.trunc(clamped).astype(np.int64)


def from_grid(integers: Integers, step: float) -> Floats:
    """The values that `integers` stand for, float64, the same shape."""
    return integers.astype(np.float64) * step


def exact_matmul(
    a: npt.NDArray[np.int64 | np.float64], b: npt.NDArray[np.int64 | np.float64]
) -> Integers:
    """The integer product `a @ b`, (n, k) x (k, m) -> (n, m) int64, computed by float64 BLAS.

    Exact, hence the same whatever the batch, the order of summation and the number of threads:
    every partial sum is an integer below 2**53.

    Args:
        a: (n, k), int64 or integer-valued float64.
        b: (k, m), the same.

    Raises:
        ValueError: an entry is not an integer, or sums of absolute products may reach 2**53. Bound
            the entries by public values first, so that this cannot depend on private rows.
    """
    left, right = _whole(a, "a"), _whole(b, "b")
    if left.size == 0 or right.size == 0:
        return np.zeros((left.shape[0], right.shape[1]), dtype=np.int64)
    abs_left, abs_right = np.abs(left), np.abs(right)
    # Sums of non-negative floats may round, by less than k * 2**-53 in relation: half is ample.
    bound = min(
        float(abs_left.sum(axis=1).max() * abs_right.max()),
        float(abs_left.max() * abs_right.sum(axis=0).max()),
    )
    if not bound < EXACT / 2:
        raise ValueError(
            f"sums of absolute products may reach {bound:.3g}, which is not below 2**52: "
            "use coarser grid steps"
        )
    return np.asarray(left @ right).astype(np.int64)


def squared_norms(rows: Integers) -> Integers:
    """Exact squared L2 norm of every row: (n, m) int64 -> (n,) int64.

    Raises:
        ValueError: a squared norm may reach 2**63. Bound the entries first.
    """
    if rows.dtype != np.int64:
        raise ValueError(f"rows must be int64, not {rows.dtype}")
    largest = max(abs(int(rows.max(initial=0))), abs(int(rows.min(initial=0))))
    if largest**2 * rows.shape[1] >= 2**63:
        raise ValueError(f"{rows.shape[1]} entries of up to {largest} may overflow int64")
    norms: Integers = np.einsum("ij,ij->i", rows, rows)
    return norms


def encode_log_odds(log_odds: Floats) -> tuple[Codes, float]:
    """Log-odds in nats on the public grid of labels: codes of the same shape, int16, and its step.

    Clamps to +-8 nats and rounds to the nearest step; NaN becomes 0, the uniform answer.
    """
    values = np.nan_to_num(log_odds, nan=0.0, posinf=LABEL_BOUND, neginf=-LABEL_BOUND)
    codes = np.rint(np.clip(values, -LABEL_BOUND, LABEL_BOUND) / LABEL_SCALE)
    return codes.astype(np.int16), LABEL_SCALE


def _whole(values: npt.NDArray[np.int64 | np.float64], name: str) -> Floats:
    if values.dtype == np.int64:
        # Converting 2**53 + 1 to float would round silently.
        if values.size and max(abs(int(values.max())), abs(int(values.min()))) >= EXACT:
            raise ValueError(f"{name} has entries of 2**53 or more: use coarser grid steps")
        return values.astype(np.float64)
    if values.dtype != np.float64 or not np.array_equal(np.rint(values), values):
        raise ValueError(f"{name} must hold integers, as int64 or float64")
    return np.asarray(values, dtype=np.float64)
