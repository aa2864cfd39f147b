"""The integer grid. PRIVACY rule 8: a record's integers depend on that record alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedistill.privacy.grid import (
    EXACT,
    LABEL_BOUND,
    LABEL_SCALE,
    encode_log_odds,
    exact_matmul,
    from_grid,
    squared_norms,
    to_grid,
)

_FLOATS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e6, 1e6)
)
_STEPS = st.integers(-40, 10).map(lambda power: 2.0**power)


def _integers(shape: tuple[int, int], bound: int = 2**20) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.int64, shape, elements=st.integers(-bound, bound))


@given(_FLOATS, _STEPS)
def test_rounding_toward_zero_lengthens_no_row(values: np.ndarray, step: float) -> None:
    grid = to_grid(values, step)
    for integers, row in zip(grid.tolist(), values.tolist(), strict=True):
        for integer, value in zip(integers, row, strict=True):
            assert abs(integer) <= abs(value) / step
            assert abs(value) / step - abs(integer) < 1 or abs(integer) == EXACT - 1


@pytest.mark.parametrize(
    ("value", "integer"),
    [(math.nan, 0), (math.inf, EXACT - 1), (-math.inf, 1 - EXACT), (1e300, EXACT - 1), (-0.0, 0)],
)
def test_a_wild_value_becomes_zero_or_is_clamped(value: float, integer: int) -> None:
    assert to_grid(np.array([[value]]), 2.0**-30).tolist() == [[integer]]


@pytest.mark.parametrize("step", [0.0, -0.5, 0.3, math.inf, math.nan])
def test_a_step_that_is_no_power_of_two_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="power of two"):
        to_grid(np.zeros((1, 1)), step)


@given(st.data(), st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_exact_matmul_equals_the_product_of_python_integers(
    data: st.DataObject, rows: int, inner: int, columns: int
) -> None:
    a = data.draw(_integers((rows, inner)))
    b = data.draw(_integers((inner, columns)))
    product = exact_matmul(a, b)
    assert product.dtype == np.int64
    assert product.tolist() == [
        [sum(x * y for x, y in zip(row, column, strict=True)) for column in b.T.tolist()]
        for row in a.tolist()
    ]
    assert np.array_equal(exact_matmul(a.astype(np.float64), b), product)


def test_deleting_rows_changes_no_bit_of_the_others() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-(2**21), 2**21, (1000, 300))
    weights = rng.integers(-(2**21), 2**21, (300, 7))
    whole = exact_matmul(rows, weights)
    for keep in (np.arange(1, 1000), np.arange(0, 1000, 3), np.array([17])):
        assert np.array_equal(exact_matmul(rows[keep], weights), whole[keep])


def test_sums_that_could_reach_the_limit_of_float64_are_refused() -> None:
    a = np.full((1, 4), 2**25)
    assert exact_matmul(a, np.full((4, 1), 2**24)).tolist() == [[2**51]]
    with pytest.raises(ValueError, match="coarser grid"):
        exact_matmul(a, np.full((4, 1), 2**25))


def test_cancelling_terms_do_not_hide_a_sum_beyond_the_limit() -> None:
    a = np.array([[2**40, -(2**40)]])
    with pytest.raises(ValueError, match="coarser grid"):
        exact_matmul(a, a.T)


@pytest.mark.parametrize("bad", [0.5, math.nan, math.inf])
def test_a_matrix_with_a_fraction_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"integers|coarser"):
        exact_matmul(np.array([[bad]]), np.array([[1.0]]))


def test_an_integer_that_float64_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="coarser grid"):
        exact_matmul(np.array([[EXACT + 1]]), np.array([[0]]))


@given(_integers((4, 3), bound=2**30))
def test_squared_norms_are_exact(rows: np.ndarray) -> None:
    assert squared_norms(rows).tolist() == [sum(x * x for x in row) for row in rows.tolist()]


def test_a_squared_norm_beyond_int64_is_refused() -> None:
    with pytest.raises(ValueError, match="overflow"):
        squared_norms(np.array([[2**31, 2**31]]))


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(-8, 8)))
def test_labels_survive_their_grid_to_within_half_a_step(log_odds: np.ndarray) -> None:
    codes, scale = encode_log_odds(log_odds)
    assert codes.dtype == np.int16
    assert np.all(np.abs(from_grid(codes, scale) - log_odds) <= scale / 2 * (1 + 1e-12))


def test_the_scale_of_labels_does_not_depend_on_them() -> None:
    _, small = encode_log_odds(np.array([[0.001]]))
    _, large = encode_log_odds(np.array([[700.0]]))
    assert small == large == LABEL_SCALE


def test_labels_beyond_the_grid_are_clamped_and_nan_is_uniform() -> None:
    codes, scale = encode_log_odds(np.array([[1e9, -np.inf, np.nan]]))
    assert codes.tolist() == [[32767, -32767, 0]]
    assert from_grid(codes, scale)[0, 0] == pytest.approx(LABEL_BOUND)
