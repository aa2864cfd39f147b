"""What releases cost, by formulas that share no code with the accountant."""

import math
from functools import cache

from mpmath import mp, mpf


@cache
def best_epsilon(rho: float, delta: float) -> float:
    """Canonne, Kamath, Steinke 2020, Corollary 13: the infimum over all real orders, 40 digits."""
    with mp.workdps(40):

        def at(log_x: mpf) -> mpf:
            order = 1 + mp.exp(log_x)
            return rho * order + mp.log(1 - 1 / order) - mp.log(delta * order) / (order - 1)

        low, high = mpf(-6), mpf(40)
        ratio = (mp.sqrt(5) - 1) / 2
        for _ in range(150):
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            low, high = (low, right) if at(left) < at(right) else (left, high)
        return float(at((low + high) / 2))


@cache
def best_rho(epsilon: float, delta: float) -> float:
    """The zCDP that costs `epsilon`: the inverse of `best_epsilon`, by bisection."""
    low, high = 0.0, epsilon
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if best_epsilon(middle, delta) <= epsilon else (low, middle)
    return low


def sampled_gaussian_rdp(rate: float, noise_multiplier: float, order: int) -> float:
    """Renyi divergence of one step of the Poisson-subsampled Gaussian, by numerical integration.

    Mironov, Talwar and Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism",
    section 3.3: with mu_0 = N(0, s^2) and mu = (1 - q) mu_0 + q N(1, s^2), the guarantee at order a
    is log E_{mu_0} (mu / mu_0)^a / (a - 1). Here the integral itself, not their series.
    """
    with mp.workdps(30):
        q, s = mpf(rate), mpf(noise_multiplier)

        def moment(z: mpf) -> mpf:
            density = mp.exp(-(z**2) / (2 * s**2)) / (s * mp.sqrt(2 * mp.pi))
            return density * (1 - q + q * mp.exp((2 * z - 1) / (2 * s**2))) ** order

        # The integrand has its mass between the modes of N(0, s^2) and N(order, s^2).
        edges = [mpf(k) * s for k in range(-12, 13, 4)] + [
            order + mpf(k) * s for k in range(-12, 13, 4)
        ]
        return float(mp.log(mp.quad(moment, sorted(set(edges)))) / (order - 1))


def epsilon_at(rdp: dict[int, float], delta: float) -> float:
    """Canonne, Kamath and Steinke 2020, Proposition 12, at the best of some orders."""
    return min(
        cost + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order, cost in rdp.items()
    )
