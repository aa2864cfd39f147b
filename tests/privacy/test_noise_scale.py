"""Scale and bounds of the noise; its law is in tests/statistical."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.privacy.discrete_gaussian import add_noise, scale_for, scale_for_squared


@given(st.integers(1, 10**15), st.floats(1e-9, 100))
def test_the_scale_costs_at_most_rho_in_exact_arithmetic(sensitivity: int, rho: float) -> None:
    scale = scale_for(sensitivity, rho)
    assert Fraction(sensitivity) ** 2 / (2 * Fraction(scale) ** 2) <= Fraction(rho)


@given(st.integers(1, 10**15), st.floats(1e-9, 100))
def test_the_next_smaller_scale_would_cost_more(sensitivity: int, rho: float) -> None:
    below = np.nextafter(scale_for(sensitivity, rho), 0)
    assert Fraction(sensitivity) ** 2 / (2 * Fraction(float(below)) ** 2) > Fraction(rho)


def test_opendp_charges_the_same_for_the_scale() -> None:
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    space = vector_domain(atom_domain(T="i64")), l2_distance(T="f64")
    measurement = make_gaussian(*space, scale_for(1000, 0.01))
    assert measurement.map(1000.0) == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize("sensitivity", [0, -1, 2.5])
def test_a_sensitivity_that_is_no_positive_integer_is_refused(sensitivity: float) -> None:
    with pytest.raises(ValueError, match="sensitivity"):
        scale_for(sensitivity, 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("rho", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rho_out_of_bounds_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        scale_for(1, rho)


@pytest.mark.parametrize("scale", [0.0, -1.0, 2.0**57, float("inf"), float("nan")])
def test_a_scale_without_headroom_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        add_noise(np.zeros(1, dtype=np.int64), scale)


def test_sums_must_be_integers() -> None:
    with pytest.raises(ValueError, match="int64"):
        add_noise(np.zeros(1), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3), (2, 0), (2, 2, 2), ()])
def test_the_shape_is_kept(shape: tuple[int, ...]) -> None:
    noised = add_noise(np.zeros(shape, dtype=np.int64), 3.0)
    assert noised.shape == shape
    assert noised.dtype == np.int64


def test_the_sums_given_are_left_alone() -> None:
    sums = np.arange(100)
    add_noise(sums, 1e6)
    assert np.array_equal(sums, np.arange(100))


def test_a_sum_at_the_end_of_int64_is_clamped_and_never_wraps() -> None:
    """PRIVACY rule 3: an error here would depend on private rows."""
    ends = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    noised = add_noise(ends, 1e12)
    assert 2**61 < noised[0] < 2**62
    assert -(2**62) < noised[1] < -(2**61)


@given(st.integers(1, 10**15), st.floats(1e-9, 100))
def test_the_square_root_of_an_integer_is_a_sensitivity_too(squared: int, rho: float) -> None:
    """The smallest scale that costs at most rho, in exact arithmetic."""
    scale = scale_for_squared(squared, rho)
    assert Fraction(squared) / (2 * Fraction(scale) ** 2) <= Fraction(rho)
    below = float(np.nextafter(scale, 0))
    assert Fraction(squared) / (2 * Fraction(below) ** 2) > Fraction(rho)


@pytest.mark.parametrize("squared", [0, -1, 2.5])
def test_a_squared_sensitivity_that_is_no_positive_integer_is_refused(squared: float) -> None:
    with pytest.raises(ValueError, match="squared_sensitivity"):
        scale_for_squared(squared, 0.1)  # type: ignore[arg-type]
