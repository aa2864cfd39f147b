"""Discrete Gaussian noise that several sites share: the distributed discrete Gaussian.

Each site adds discrete Gaussian noise of scale s to its own integers (`add_noise`), and only the
sum over sites is seen. A sum of h discrete Gaussians is no discrete Gaussian of scale sqrt(h) s,
but nearly one: the ratio of the two laws is 1 to within

    tau = 10 * sum over k = 1 .. h - 1 of exp(-2 pi^2 s^2 k / (k + 1)).

If h sites add their noise and keep it to themselves, a vector of d integers of L2 sensitivity D
satisfies e^2 / 2 zCDP with

    e = min(sqrt(D^2 / (h s^2) + tau d / 2), D / (sqrt(h) s) + tau sqrt(d)),

for s of at least 1/2: Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism
for Federated Learning with Secure Aggregation", Theorem 1. Noise of further sites and their data
are added to that: post-processing, even if those sites are malicious, since their integers do not
depend on the noise of the h. With h = 1 no theorem is needed and tau is 0: `discrete_gaussian`.

All is computed in rational arithmetic, or in floats with a margin, and rounded up.
"""

import math
import sys
from fractions import Fraction

import numpy as np

from fedistill.privacy.discrete_gaussian import scale_for_squared

SMALLEST_SHARED_SCALE = 0.5
"""Below it nothing is known of the sum of several discrete Gaussians."""

_MARGIN = 1 + 1e-9
"""Covers what the floats of the closeness term may round down."""


def shared_rho(squared_sensitivity: int, scale: float, honest: int, dimension: int) -> float:
    """What a vector costs in zCDP that `honest` sites noise, each at `scale`; rounded up.

    Args:
        squared_sensitivity: Square of the vector's L2 sensitivity, in grid steps.
        scale: Of a single site's noise, in grid steps.
        honest: Sites whose noise is in the sum and that tell nobody what it is, at least 1.
        dimension: Entries of the vector.

    Raises:
        ValueError: An argument is out of bounds, or `scale` is below 1/2 for several sites.
    """
    _check(squared_sensitivity, honest, dimension)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale={scale} must be a positive number")
    if honest > 1 and scale < SMALLEST_SHARED_SCALE:
        raise ValueError(
            f"scale={scale} must be at least {SMALLEST_SHARED_SCALE} where {honest} sites share "
            "the noise: use a finer grid, which has a larger scale"
        )
    gaussian = Fraction(int(squared_sensitivity)) / (2 * honest * Fraction(scale) ** 2)
    if honest == 1:
        return _rounded_up(gaussian)
    tau = _closeness(scale, honest)
    length = math.sqrt(2 * gaussian)
    beside = tau * math.sqrt(dimension)
    excess = min(tau * dimension / 4, beside * length + beside**2 / 2) * _MARGIN
    return _rounded_up(gaussian + Fraction(max(excess, sys.float_info.min)))


def site_scale_for(squared_sensitivity: int, rho: float, honest: int, dimension: int) -> float:
    """The smallest float scale of a single site's noise with `shared_rho` of at most `rho`.

    For one honest site it is `scale_for_squared`, for several at least 1/2.

    Raises:
        ValueError: An argument is out of bounds.
    """
    _check(squared_sensitivity, honest, dimension)
    if honest == 1:
        return scale_for_squared(squared_sensitivity, rho)
    low = scale_for_squared(squared_sensitivity, rho) / math.sqrt(honest) / _MARGIN
    low = max(low, SMALLEST_SHARED_SCALE)

    def fits(scale: float) -> bool:
        return shared_rho(squared_sensitivity, scale, honest, dimension) <= rho

    if fits(low):
        return low
    high = 2 * low
    while not fits(high):
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _closeness(scale: float, honest: int) -> float:
    """Tau, rounded up. Terms too small for a float count as the smallest one."""
    terms = (
        math.exp(-2 * math.pi**2 * scale**2 * k / (k + 1)) if scale < 30 else 0.0
        for k in range(1, honest)
    )
    return 10 * sum(max(term, sys.float_info.min) for term in terms) * _MARGIN


def _rounded_up(exact: Fraction) -> float:
    nearest = float(exact)
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


def _check(squared_sensitivity: int, honest: int, dimension: int) -> None:
    for field, value in (
        ("squared_sensitivity", squared_sensitivity),
        ("honest", honest),
        ("dimension", dimension),
    ):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{field}={value} must be a whole number of at least 1")
