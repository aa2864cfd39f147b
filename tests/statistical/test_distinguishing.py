"""The bounds of `distinguishing`: never too high too often, high enough when it counts."""

import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    ZCDpEvent,
)
from scipy import optimize, stats

from tests.statistical.distinguishing import (
    epsilon_from_mu,
    mu_from_shift,
    mu_from_threshold,
    mu_of_event,
    power_of_shift,
    power_of_threshold,
)

pytestmark = pytest.mark.statistical


@pytest.mark.parametrize("runs", [1, 20, 350])
@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-7])
def test_a_threshold_exceeds_the_true_mu_no_more_often_than_alpha(runs, mu, alpha) -> None:
    """Exact, over all outcomes."""
    assert power_of_threshold(runs, claim=mu, true=mu, alpha=alpha) <= alpha


@pytest.mark.parametrize("false_alarm", [0.001, 0.1, 0.7])
def test_a_threshold_anywhere_is_no_more_often_wrong(false_alarm: float) -> None:
    """Exact, for the best test that a mu of 1 allows at that false-alarm rate."""
    runs, mu, alpha = 60, 1.0, 0.05
    detection = stats.norm.cdf(stats.norm.ppf(false_alarm) + mu)
    counts = np.arange(runs + 1)
    chance = np.outer(
        stats.binom.pmf(counts, runs, detection), stats.binom.pmf(counts, runs, false_alarm)
    )
    bounds = np.array([[mu_from_threshold(d, f, runs, alpha) for f in counts] for d in counts])
    assert chance[bounds > mu].sum() <= alpha


def test_all_runs_told_apart_prove_only_what_so_few_can() -> None:
    """Clopper and Pearson: 20 of 20 leave a rate of alpha**(1 / 20)."""
    expected = 2 * stats.norm.ppf(0.025 ** (1 / 20))
    assert mu_from_threshold(20, 0, 20, 0.05) == pytest.approx(expected)
    assert mu_from_threshold(0, 20, 20, 0.05) == -np.inf


def shifted(mu: float, runs: int, sets: int) -> list[float]:
    random = np.random.default_rng(0)
    return [
        mu_from_shift(random.normal(mu * 3, 3, runs), random.normal(0, 3, runs), 0.05)
        for _ in range(sets)
    ]


def test_a_shift_exceeds_the_true_mu_as_often_as_alpha() -> None:
    """1,000 sets of samples; 50 +- 7 are expected, and the bounds lie 5 standard errors off."""
    exceeding = np.sum(np.array(shifted(0.5, 50, 1_000)) > 0.5)
    assert 15 <= exceeding <= 85


def test_the_power_of_a_shift_is_the_one_stated() -> None:
    """1,000 sets of samples, the stated power +- 5 standard errors."""
    stated = power_of_shift(50, claim=0.5, true=1.0, alpha=0.05)
    assert 0.5 < stated < 0.9
    caught = np.mean(np.array(shifted(1.0, 50, 1_000)) > 0.5)
    assert abs(caught - stated) < 5 * np.sqrt(stated * (1 - stated) / 1_000)


def test_the_power_of_a_threshold_is_the_one_stated() -> None:
    """1,000 sets of samples, the stated power +- 5 standard errors."""
    runs, random = 60, np.random.default_rng(0)
    stated = power_of_threshold(runs, claim=0.5, true=1.2, alpha=0.05)
    assert 0.3 < stated < 0.9
    caught = []
    for _ in range(1_000):
        present, absent = random.normal(0.6, 1, runs), random.normal(-0.6, 1, runs)
        found = mu_from_threshold(int((present > 0).sum()), int((absent > 0).sum()), runs, 0.05)
        caught.append(found > 0.5)
    assert abs(np.mean(caught) - stated) < 5 * np.sqrt(stated * (1 - stated) / 1_000)


@pytest.mark.parametrize("mu", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_epsilon_of_mu_is_where_the_curve_of_dong_roth_and_su_meets_delta(mu, delta) -> None:
    """Corollary 2.13 of "Gaussian Differential Privacy", solved here."""

    def excess(epsilon: float) -> float:
        left = stats.norm.cdf(-epsilon / mu + mu / 2)
        return float(left - np.exp(epsilon) * stats.norm.cdf(-epsilon / mu - mu / 2)) - delta

    expected = optimize.brentq(excess, 0, 60)
    assert epsilon_from_mu(mu, delta) == pytest.approx(expected, rel=1e-6)
    assert epsilon_from_mu(-mu, delta) == 0


def test_the_mu_of_an_event_adds_in_squares() -> None:
    event = ComposedDpEvent([ZCDpEvent(0.02), SelfComposedDpEvent(GaussianDpEvent(5.0), 4)])
    assert mu_of_event(event) == pytest.approx(np.sqrt(0.04 + 4 / 25))


def test_an_event_that_is_no_gaussian_claims_no_mu() -> None:
    with pytest.raises(ValueError, match="claims no mu"):
        mu_of_event(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)))
