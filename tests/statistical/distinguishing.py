"""What samples under two neighbouring data sets prove: lower bounds on mu and on epsilon.

A release is mu-GDP if telling the two apart is at least as hard as telling N(0, 1) from N(mu, 1)
(Dong, Roth and Su 2022, "Gaussian Differential Privacy", definition 2.6). Discrete Gaussian noise
on integers that move by a vector of length mu scales is as hard as that, from about scale 1 up: at
half a step beside the lattice its tails are those of the Gaussian to within exp(-2 pi**2 scale**2).

Any statistic gives a valid bound; a poor one gives a low one. What depends on samples (a direction,
a threshold) is fixed by others than those that are counted.
"""

import numpy as np
from dp_accounting import DpEvent, NeighboringRelation, get_epsilon_gaussian
from dp_accounting.rdp import RdpAccountant
from scipy import optimize, stats


def mu_from_threshold(detected: int, false_alarms: int, runs: int, alpha: float) -> float:
    """Lower confidence bound on mu of a threshold test, whatever the law of its statistic.

    Clopper-Pearson bounds on both rates, each at alpha / 2, turned by mu >= z(detected) - z(false
    alarms), z the normal quantile. P(the bound exceeds the true mu) <= alpha.

    Args:
        detected: Runs with the record above the threshold.
        false_alarms: Runs without it above the threshold.
        runs: On each side.
        alpha: False-alarm rate.
    """
    sides = np.array([detected, runs - false_alarms])
    return float(_quantile_at_least(sides, runs, alpha / 2).sum())


def power_of_threshold(runs: int, *, claim: float, true: float, alpha: float) -> float:
    """P(`mu_from_threshold` exceeds `claim`) for a statistic of `true` mu, threshold midway.

    Exact: both counts are independent binomials with success probability Phi(true / 2).
    """
    counts = np.arange(runs + 1)
    bound = _quantile_at_least(counts, runs, alpha / 2)
    chance = stats.binom.pmf(counts, runs, stats.norm.cdf(true / 2))
    caught = bound[:, None] + bound[None, :] > claim
    return float((chance[:, None] * chance[None, :])[caught].sum())


def mu_from_shift(present: np.ndarray, absent: np.ndarray, alpha: float) -> float:
    """Lower confidence bound on mu of a statistic that is normal with one variance on both sides.

    The two-sample t statistic then has a noncentral t law, which is inverted. Exact; needs far
    fewer runs than a threshold where mu is small.

    Args:
        present: (runs,) the statistic with the record.
        absent: (runs,) without it.
        alpha: P(the bound exceeds the true mu).
    """
    runs = len(present)
    spread = np.sqrt((present.var(ddof=1) + absent.var(ddof=1)) / 2)
    found = (present.mean() - absent.mean()) / spread / np.sqrt(2 / runs)

    def excess(centre: float) -> float:
        return float(stats.nct.sf(found, 2 * runs - 2, centre)) - alpha

    low, high = found - 40.0, found
    return float(optimize.brentq(excess, low, high) * np.sqrt(2 / runs))


def power_of_shift(runs: int, *, claim: float, true: float, alpha: float) -> float:
    """P(`mu_from_shift` exceeds `claim`) for a statistic of `true` mu; exact."""
    degrees, per_mu = 2 * runs - 2, np.sqrt(runs / 2)
    threshold = stats.nct.isf(alpha, degrees, claim * per_mu)
    return float(stats.nct.sf(threshold, degrees, true * per_mu))


def epsilon_from_mu(mu: float, delta: float) -> float:
    """Epsilon at `delta` of what is mu-GDP and no better; 0 for mu <= 0 (Balle and Wang 2018)."""
    return float(get_epsilon_gaussian(1 / mu, delta)) if mu > 1e-9 else 0.0


def mu_of_event(event: DpEvent) -> float:
    """The mu that an event of Gaussian noise claims: sqrt(2 rho), its Renyi curve being rho a.

    Raises:
        ValueError: The curve is no line, so the event is not Gaussian noise alone.
    """
    accountant = RdpAccountant([2.0, 32.0], NeighboringRelation.ADD_OR_REMOVE_ONE)
    two, many = accountant.compose(event).rdp
    if not np.isclose(many, 16 * two):
        raise ValueError(f"event={event} claims no mu: compare its epsilon")
    return float(np.sqrt(two))


def _quantile_at_least(successes: np.ndarray, runs: int, alpha: float) -> np.ndarray:
    """Normal quantile of the Clopper-Pearson lower bound on a success probability."""
    some = np.maximum(successes, 1)
    low = np.where(successes == 0, 0.0, stats.beta.ppf(alpha, some, runs - some + 1))
    return stats.norm.ppf(low)
