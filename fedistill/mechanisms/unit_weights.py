"""Every unit has weight one, split evenly over its rows.

Where a row may contribute at most B in some norm, a row of a unit with r valid rows may contribute
at most floor(B / r). By the triangle inequality the unit's rows together stay within B, for
r floor(B / r) <= B. So sensitivity, noise and event for a whole unit are those for a single row,
however many rows a unit has, and no bound on r is declared or checked.

A row's share depends on its own unit's rows alone (PRIVACY rule 8, read for units): other units may
come and go. Without units each row is a unit, and its share is B.
"""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def unit_sizes(units: Integers | None, valid: Mask) -> Integers:
    """How many valid rows each row's unit has, (num_rows,) int64 and at least 1.

    Args:
        units: (num_rows,) whom each row is about, or None where each row is a unit.
        valid: (num_rows,) which rows contribute at all.
    """
    if units is None:
        return np.ones(len(valid), np.int64)
    _, unit = np.unique(units, return_inverse=True)
    sizes: Integers = np.maximum(np.bincount(unit[valid], minlength=len(unit)), 1)[unit]
    return sizes


def row_bounds(bound: int, units: Integers | None, valid: Mask) -> Integers:
    """What each row may contribute so that each unit contributes at most `bound`, (num_rows,).

    Args:
        bound: Of a unit, in steps of an integer grid.
        units: As in `unit_sizes`.
        valid: As there.
    """
    bounds: Integers = bound // unit_sizes(units, valid)
    return bounds
