"""What releases cost, against formulas that share no code with the accountant."""

import logging
import math

import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    ZCDpEvent,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedistill.errors import ConfigError
from fedistill.privacy import accountant
from fedistill.privacy.accountant import (
    calibrate_rho,
    epsilon_of,
    largest_epsilon_left,
    within_budget,
)
from fedistill.privacy.adjacency import Adjacency
from tests.privacy.oracles import best_epsilon

ADD_REMOVE = Adjacency.ADD_REMOVE
BUDGET = {"budget_epsilon": 1.0, "delta": 1e-5, "adjacency": ADD_REMOVE}


def gaussian_delta(epsilon: float, noise_multiplier: float) -> float:
    """Balle and Wang 2018, Theorem 8: the exact delta of the Gaussian mechanism."""
    half, shift = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
    return float(norm.cdf(half - shift) - math.exp(epsilon) * norm.cdf(-half - shift))


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("rho", [1e-3, 0.0085, 0.03, 0.5, 3.0, 30.0, 1000.0])
def test_a_zcdp_release_costs_the_best_conversion_and_at_most_1e_5_more(
    rho: float, delta: float
) -> None:
    best = best_epsilon(rho, delta)
    assert best * (1 - 1e-12) <= epsilon_of(ZCDpEvent(rho), delta, ADD_REMOVE) <= best * (1 + 1e-5)


@pytest.mark.parametrize("rho", [1e-10, 1e-8, 1e-6])
def test_tiny_rho_is_charged_tightly_too(rho: float) -> None:
    best = best_epsilon(rho, 1e-9)
    assert epsilon_of(ZCDpEvent(rho), 1e-9, ADD_REMOVE) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("noise_multiplier", [0.5, 2.0, 8.0])
def test_a_gaussian_never_costs_less_than_its_exact_guarantee(noise_multiplier: float) -> None:
    epsilon = epsilon_of(GaussianDpEvent(noise_multiplier), 1e-5, ADD_REMOVE)
    assert gaussian_delta(epsilon, noise_multiplier) <= 1e-5


def test_a_gaussian_costs_what_its_zcdp_costs() -> None:
    gaussian = epsilon_of(GaussianDpEvent(5.0), 1e-5, ADD_REMOVE)
    assert gaussian == pytest.approx(epsilon_of(ZCDpEvent(1 / 50), 1e-5, ADD_REMOVE), rel=1e-12)


def test_nothing_costs_nothing() -> None:
    assert epsilon_of([], 1e-5, ADD_REMOVE) == 0


def test_composition_costs_the_sum_of_rho() -> None:
    parts = [ZCDpEvent(0.01), SelfComposedDpEvent(ZCDpEvent(0.005), 4), ComposedDpEvent([])]
    together = epsilon_of(parts, 1e-5, ADD_REMOVE)
    assert together == pytest.approx(epsilon_of(ZCDpEvent(0.03), 1e-5, ADD_REMOVE), rel=1e-12)


@settings(deadline=None, max_examples=15)
@given(st.floats(1e-3, 50), st.sampled_from([1e-3, 1e-5, 1e-8]), st.integers(1, 50))
def test_what_is_calibrated_is_charged_at_most_epsilon_however_it_is_split(
    epsilon: float, delta: float, parts: int
) -> None:
    """PRIVACY rule 9: calibrate with the accountant that charges."""
    rho = calibrate_rho(epsilon, delta)
    charge = epsilon_of([ZCDpEvent(rho / parts)] * parts, delta, ADD_REMOVE)
    assert charge <= epsilon
    assert epsilon_of(ZCDpEvent(rho * (1 + 1e-8)), delta, ADD_REMOVE) > epsilon


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_calibration_agrees_with_a_direct_minimisation(epsilon: float) -> None:
    orders = np.concatenate([np.linspace(1.01, 10, 400), np.linspace(10, 20_000, 20_000)])
    low, high = 1e-9, 50.0
    for _ in range(80):
        rho = (low + high) / 2
        conversion = rho * orders + np.log1p(-1 / orders) - np.log(1e-5 * orders) / (orders - 1)
        low, high = (low, rho) if conversion.min() > epsilon else (rho, high)
    assert calibrate_rho(epsilon, 1e-5) == pytest.approx(low, rel=1e-3)


def test_a_budget_holds_exactly_what_was_calibrated_for_it() -> None:
    rho = calibrate_rho(1.0, 1e-5)
    parts = [ZCDpEvent(rho / 3)] * 3
    assert within_budget(parts[:2], parts[2], **BUDGET)
    assert not within_budget(parts, ZCDpEvent(1e-6), **BUDGET)


def test_a_sampled_release_that_fits_alone_may_be_the_only_one() -> None:
    """PRIVACY rule 11: later questions compose at one order that was fixed beforehand."""
    sampled = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 300)
    alone = epsilon_of(sampled, 1e-5, ADD_REMOVE)
    budget = {**BUDGET, "budget_epsilon": alone}
    assert within_budget([], sampled, **budget)
    assert not within_budget([sampled], ZCDpEvent(1e-4), **budget)


def test_sampled_releases_compose_with_zcdp_ones() -> None:
    sampled = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 300)
    rho = calibrate_rho(1.0, 1e-5)
    assert within_budget([ZCDpEvent(rho)], sampled, **{**BUDGET, "budget_epsilon": 3.0})
    together = epsilon_of([ZCDpEvent(rho), sampled], 1e-5, ADD_REMOVE)
    assert together > epsilon_of(sampled, 1e-5, ADD_REMOVE)


def test_what_is_left_fits_and_hardly_more_does() -> None:
    past = [ZCDpEvent(calibrate_rho(0.5, 1e-5))]
    left = largest_epsilon_left(past, **BUDGET)
    assert 0.5 < left < 1.0
    assert within_budget(past, ZCDpEvent(calibrate_rho(left * 0.9999, 1e-5)), **BUDGET)
    assert not within_budget(past, ZCDpEvent(calibrate_rho(left * 1.0001, 1e-5)), **BUDGET)


def test_an_exhausted_budget_leaves_nothing() -> None:
    assert largest_epsilon_left([ZCDpEvent(calibrate_rho(1.0, 1e-5))], **BUDGET) == 0


def test_poisson_sampling_is_refused_under_replace_one() -> None:
    """PRIVACY rule 7: its known bound is for add/remove."""
    event = PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0))
    with pytest.raises(ConfigError, match="adjacency=replace-one"):
        epsilon_of(event, 1e-5, Adjacency.REPLACE_ONE)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_out_of_bounds_is_named(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=f"epsilon={epsilon} must be"):
        calibrate_rho(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.1e-3, 1.0, math.nan])
def test_a_delta_out_of_bounds_is_named(delta: float) -> None:
    with pytest.raises(ConfigError, match=f"delta={delta} must be .* at most 0.001"):
        calibrate_rho(1.0, delta)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(ZCDpEvent, st.floats(-9, 3).map(lambda power: 10**power)),
            st.builds(GaussianDpEvent, st.floats(-2, 4).map(lambda power: 10**power)),
        ),
        min_size=1,
        max_size=4,
    ),
    st.floats(-12, -3).map(lambda power: 10**power),
)
def test_the_quick_search_for_the_best_order_finds_the_best_of_all(
    events: list[ZCDpEvent | GaussianDpEvent], delta: float
) -> None:
    every = accountant._compose(tuple(events), accountant._fine_orders(), ADD_REMOVE)
    assert epsilon_of(events, delta, ADD_REMOVE) == every.get_epsilon(delta)


def test_orders_that_the_accountant_leaves_out_are_not_shown_to_the_user(caplog) -> None:
    """Leaving one out can only overcharge; other notes of the library still come through."""
    sampled = PoissonSampledDpEvent(0.25, GaussianDpEvent(3.0))
    epsilon_of(SelfComposedDpEvent(sampled, 100), 1e-5, ADD_REMOVE)
    assert not caplog.records
    logging.getLogger("absl").warning("another note")
    assert [record.message for record in caplog.records] == ["another note"]
