import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.evaluate.charts.axis import axis_around, axis_from_zero


@given(ends=st.tuples(st.floats(0, 1), st.floats(0, 1)), most=st.integers(4, 10))
def test_axis_holds_its_values_within_zero_and_one(ends, most):
    low, high = sorted(ends)
    axis = axis_around(low, high, most_ticks=most)
    assert 0 <= axis.low <= low + 1e-9
    assert high - 1e-9 <= axis.high <= 1
    assert axis.high - axis.low >= 0.04 - 1e-9
    assert 2 <= len(axis.ticks) <= most + 1
    assert [float(axis.label(tick)) for tick in axis.ticks] == list(axis.ticks)


@given(ends=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), most=st.integers(4, 10))
def test_axis_of_differences_holds_its_values_and_signs_its_ticks(ends, most):
    low, high = sorted(ends)
    axis = axis_around(low, high, most_ticks=most, floor=-1.0, signed=True)
    assert -1 <= axis.low <= low + 1e-9
    assert high - 1e-9 <= axis.high <= 1
    assert 2 <= len(axis.ticks) <= most + 1
    signs = {"0": 0, "+": 1, "\N{MINUS SIGN}": -1}
    for tick in axis.ticks:
        assert signs[axis.label(tick)[0]] * tick >= 0


@given(high=st.floats(1e-6, 1e12), most=st.integers(3, 8))
def test_axis_from_zero_holds_its_value_with_few_round_ticks(high, most):
    axis = axis_from_zero(high, most_ticks=most)
    assert axis.low == 0
    assert axis.high >= high * (1 - 1e-9)
    assert axis.high <= 3 * high
    assert 2 <= len(axis.ticks) <= most + 1
    assert [float(axis.label(tick)) for tick in axis.ticks] == pytest.approx(list(axis.ticks))


def test_values_outside_are_held_at_the_ends():
    axis = axis_around(0.2, 0.4, most_ticks=5)
    assert axis.between(10, 20, -5) == 10
    assert axis.between(10, 20, 5) == 20


def test_axis_without_any_cost_still_has_a_length():
    assert axis_from_zero(0.0, most_ticks=4).high == 1
