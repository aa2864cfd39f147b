"""What shared noise costs: against 50-digit arithmetic, and against the true law of sums."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from fedistill.privacy.discrete_gaussian import scale_for_squared
from fedistill.privacy.shared_noise import SMALLEST_SHARED_SCALE, shared_rho, site_scale_for

sensitivities = st.integers(1, 10**15)
honests = st.integers(2, 40)
dimensions = st.integers(1, 10**6)


def theorem(squared: int, scale: float, honest: int, dimension: int) -> mpf:
    """Kairouz, Liu and Steinke 2021, Theorem 1, read off the page: 1/2 eps^2, 50 digits."""
    with mp.workdps(50):
        s, h, d = mpf(scale), mpf(honest), mpf(dimension)
        tau = 10 * sum(
            (mp.exp(-2 * mp.pi**2 * s**2 * mpf(k) / (k + 1)) for k in range(1, honest)), mpf(0)
        )
        one = mp.sqrt(squared / (h * s**2) + tau * d / 2)
        other = mp.sqrt(mpf(squared)) / (mp.sqrt(h) * s) + tau * mp.sqrt(d)
        return min(one, other) ** 2 / 2


@settings(deadline=None)
@given(sensitivities, st.floats(0.5, 1e9), honests, dimensions)
def test_the_cost_is_that_of_the_theorem_rounded_up(squared, scale, honest, dimension) -> None:
    exact = theorem(squared, scale, honest, dimension)
    found = shared_rho(squared, scale, honest, dimension)
    assert exact <= mpf(found) <= exact * (1 + mpf("1e-8"))


@settings(deadline=None)
@given(sensitivities, st.floats(1e-6, 50), honests, dimensions)
def test_the_scale_of_a_site_costs_at_most_rho_and_hardly_less(squared, rho, honest, dimension):
    scale = site_scale_for(squared, rho, honest, dimension)
    assert theorem(squared, scale, honest, dimension) <= mpf(rho)
    below = math.nextafter(scale, 0.0)
    if scale > SMALLEST_SHARED_SCALE:
        assert shared_rho(squared, below, honest, dimension) > rho


@given(sensitivities, st.floats(1e-9, 100), dimensions)
def test_one_honest_site_makes_all_the_noise(squared: int, rho: float, dimension: int) -> None:
    scale = site_scale_for(squared, rho, 1, dimension)
    assert scale == scale_for_squared(squared, rho)
    assert Fraction(squared) / (2 * Fraction(scale) ** 2) <= Fraction(
        shared_rho(squared, scale, 1, dimension)
    )
    assert shared_rho(squared, scale, 1, dimension) <= rho


@given(sensitivities, st.floats(4.0, 1e6), st.integers(1, 40), dimensions)
def test_one_honest_site_more_costs_less(squared, scale, honest, dimension) -> None:
    """Where the sum is nearly Gaussian: at small scales tau grows faster than the noise."""
    more = shared_rho(squared, scale, honest + 1, dimension)
    assert more < shared_rho(squared, scale, honest, dimension)


def law_of_sum(scale: float, honest: int) -> np.ndarray:
    """Probabilities of a sum of discrete Gaussians, by convolution; symmetric around the middle."""
    edge = int(14 * scale) + 14
    support = np.arange(-edge, edge + 1, dtype=np.float64)
    single = np.exp(-(support**2) / (2 * scale**2))
    single /= single.sum()
    law = single
    for _ in range(honest - 1):
        law = np.convolve(law, single)
    return law


def divergence(law: np.ndarray, moved: int, order: float) -> float:
    """Renyi divergence of a law from itself moved along, where both are above rounding errors."""
    one, other = law[moved:], law[:-moved]
    seen = (one > 1e-200) & (other > 1e-200)
    logs = order * np.log(one[seen]) + (1 - order) * np.log(other[seen])
    top = logs.max()
    return (top + math.log(np.exp(logs - top).sum())) / (order - 1)


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.8, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("honest", [2, 3, 5])
@pytest.mark.parametrize("moved", [1, 2])
def test_sums_of_discrete_gaussians_diverge_no_more_than_is_charged(scale, honest, moved) -> None:
    """The true divergence, in one dimension: below order times rho at every order tried."""
    law = law_of_sum(scale, honest)
    rho = shared_rho(moved**2, scale, honest, 1)
    for order in (1.01, 1.5, 2.0, 4.0, 8.0):
        assert divergence(law, moved, order) <= order * rho * (1 + 1e-9)


@pytest.mark.parametrize("honest", [2, 3, 5])
def test_the_charge_is_sharp_once_the_sum_is_nearly_gaussian(honest: int) -> None:
    """Were the noise of one site less counted on, the true divergence would exceed the charge."""
    law = law_of_sum(3.0, honest)
    assert divergence(law, 1, 2.0) > 0.999 * 2 * shared_rho(1, 3.0, honest, 1)
    assert divergence(law, 1, 2.0) > 2 * shared_rho(1, 3.0, honest + 1, 1)


def test_at_a_small_scale_the_closeness_term_is_needed() -> None:
    """A sum of two discrete Gaussians of scale 0.5 costs more than one of scale sqrt(2) / 2."""
    law = law_of_sum(0.5, 2)
    assert max(divergence(law, 1, order) / order for order in (1.01, 2.0, 8.0)) > 1 / (2 * 2 * 0.25)


def test_a_scale_too_small_for_the_theorem_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale=0\.49 must be at least 0\.5 where 2 sites"):
        shared_rho(1, 0.49, 2, 1)
    assert shared_rho(1, 0.49, 1, 1) > 0
    assert site_scale_for(1, 1e3, 2, 1) == SMALLEST_SHARED_SCALE


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("squared_sensitivity", (0, 1.0, 2, 1)),
        ("honest", (1, 1.0, 0, 1)),
        ("dimension", (1, 1.0, 2, 0)),
        ("honest", (1, 1.0, 1.5, 1)),
    ],
)
def test_arguments_out_of_bounds_are_refused(field: str, arguments) -> None:
    for function in (shared_rho, site_scale_for):
        with pytest.raises(ValueError, match=field):
            function(*arguments)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("honest", [1, 2])
def test_a_scale_or_rho_that_is_no_positive_number_is_refused(bad: float, honest: int) -> None:
    with pytest.raises(ValueError, match="scale"):
        shared_rho(1, bad, honest, 1)
    with pytest.raises(ValueError, match="rho"):
        site_scale_for(1, bad, honest, 1)
