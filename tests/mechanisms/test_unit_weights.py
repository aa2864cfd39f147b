import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.mechanisms.unit_weights import row_bounds, unit_sizes

CODES = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
ROWS = st.lists(st.tuples(CODES, st.booleans()), max_size=60)


def arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    units = np.array([unit for unit, _ in rows], np.int64)
    return units, np.array([valid for _, valid in rows], np.bool_)


@given(ROWS, st.integers(0, 2**40))
def test_the_valid_rows_of_a_unit_stay_within_the_bound_together(rows, bound: int) -> None:
    units, valid = arrays(rows)
    bounds = row_bounds(bound, units, valid)
    assert bounds.dtype == np.int64
    assert (bounds >= 0).all()
    for unit in set(units[valid].tolist()):
        own = valid & (units == unit)
        assert bound - own.sum() < bounds[own].sum() <= bound
        assert len(set(bounds[own].tolist())) == 1


@settings(max_examples=50)
@given(ROWS)
def test_sizes_count_valid_rows_of_the_same_unit(rows) -> None:
    """An oracle that counts one by one; a row of no valid unit gets 1, so that all may divide."""
    units, valid = arrays(rows)
    counted = [max(1, sum(v for u, v in rows if u == unit)) for unit, _ in rows]
    assert unit_sizes(units, valid).tolist() == counted


@given(ROWS, st.sets(CODES, max_size=5))
def test_deleting_other_units_changes_no_share(rows, gone: set[int]) -> None:
    """PRIVACY rule 8, by units."""
    units, valid = arrays(rows)
    gone |= set(units[::3].tolist())
    stays = np.array([unit not in gone for unit in units.tolist()], np.bool_)
    np.testing.assert_array_equal(
        unit_sizes(units, valid)[stays], unit_sizes(units[stays], valid[stays])
    )


def test_without_units_each_row_has_the_whole_bound() -> None:
    valid = np.array([True, False, True])
    assert row_bounds(7, None, valid).tolist() == [7, 7, 7]
    assert unit_sizes(None, valid[:0]).shape == (0,)


def test_a_unit_of_more_rows_than_the_grid_has_steps_counts_as_nothing() -> None:
    units, valid = np.zeros(10, np.int64), np.ones(10, np.bool_)
    assert row_bounds(9, units, valid).tolist() == [0] * 10
