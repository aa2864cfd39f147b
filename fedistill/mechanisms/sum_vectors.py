"""Integers that are summed over sites mod 2^32: a coarser grid, a bound, then noise.

Mechanisms sum on grids so fine that sums over sites would not fit. So an exact sum S is divided by
a public m, each entry rounded toward zero, and noised only then.

Sensitivity: for integers a and b, trunc(a / m) - trunc(b / m) differs from (a - b) / m by less than
1. So if S moves by at most D in L2, its d entries after division move by less than D / m + sqrt(d):
by the triangle inequality. m is the largest power of two with D / m >= 100 sqrt(d), so this costs
at most 1% of noise; where there is none, m = 1 and nothing changes.

Headroom: n sites send integers in [-B, B] with n B < 2^31, so that the sum never wraps. Entries
are clamped to +-(B - 40 s) before the noise of scale s: clamping an entry brings two values no
further apart, so the sensitivity stays. They are clamped to +-B after it, which changes nothing but
with probability below 2 exp(-800) an entry; so much is added to delta where noise is shared, and
nothing where it is not (post-processing).

Output law: see `shared_noise`, for the honest sites that are counted on.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.labels import Floats
from fedistill.privacy.discrete_gaussian import add_noise
from fedistill.privacy.shared_noise import shared_rho, site_scale_for

Integers = npt.NDArray[np.int64]

FINENESS = 100
"""A coarser grid is taken as long as the sensitivity is so many times what rounding may add."""

_HALF_RANGE = 2**31
_TAIL = 40
"""P(|noise| > 40 scales) is below 2 exp(-800)."""


@dataclass(frozen=True, kw_only=True)
class SumVector:
    """A vector that each site noises and of which the server sees the sum.

    Attributes:
        entries: How many integers, at least 1.
        divisor: What the exact sum is divided by; a power of two.
        squared_sensitivity: Of the divided sum, in L2.
        scale: Of the noise that each site adds to each divided entry.
        honest: Sites whose noise is counted on.
    """

    entries: int
    divisor: int
    squared_sensitivity: int
    scale: float
    honest: int

    @property
    def rho(self) -> float:
        """What it costs in zCDP if `honest` sites' noise is in the sum and known to nobody."""
        return shared_rho(self.squared_sensitivity, self.scale, self.honest, self.entries)

    @property
    def rho_alone(self) -> float:
        """What it costs in zCDP if only the site's own noise is."""
        return shared_rho(self.squared_sensitivity, self.scale, 1, self.entries)

    def std(self, num_sites: int) -> float:
        """Of the noise in an opened sum over so many sites, in steps of the mechanism's grid."""
        return math.sqrt(num_sites) * self.scale * self.divisor


def sum_vector(entries: int, squared_sensitivity: int, rho: float, *, honest: int) -> SumVector:
    """The vector, and the smallest noise, that costs at most `rho`.

    Args:
        entries: How many integers.
        squared_sensitivity: Of the exact sum in L2, a whole number.
        rho: zCDP that it may cost, with the noise of `honest` sites.
        honest: See above.
    """
    divisor = divisor_for(entries, squared_sensitivity)
    squared = divided_sensitivity(entries, squared_sensitivity, divisor)
    scale = site_scale_for(squared, rho, honest, entries)
    return SumVector(
        entries=entries, divisor=divisor, squared_sensitivity=squared, scale=scale, honest=honest
    )


def divisor_for(entries: int, squared_sensitivity: int) -> int:
    """The largest power of two by which the sensitivity still is 100 sqrt(entries)."""
    divisor = 1
    while squared_sensitivity >= (2 * divisor * FINENESS) ** 2 * entries:
        divisor *= 2
    return divisor


def divided_sensitivity(entries: int, squared_sensitivity: int, divisor: int) -> int:
    """(D / m + sqrt(d))^2, rounded up; D^2 if nothing is divided."""
    if divisor == 1:
        return squared_sensitivity
    product = math.isqrt(squared_sensitivity * entries) + 1
    return -(-squared_sensitivity // divisor**2) - (-2 * product // divisor) + entries


def divided(exact: Integers, divisor: int) -> Integers:
    """Each entry divided and rounded toward zero."""
    rounded: Integers = np.sign(exact) * (np.abs(exact) // divisor)
    return rounded


def noised(exact: Integers, vector: SumVector, largest: int) -> Integers:
    """What a site sends of a vector, (entries,) int64 in [-largest, largest].

    Args:
        exact: As many entries, of the exact sum.
        vector: See above.
        largest: B; leaves room for the noise (`has_room`).
    """
    bound = largest - math.ceil(_TAIL * vector.scale)
    clamped = np.clip(divided(exact.ravel(), vector.divisor), -bound, bound)
    sent: Integers = np.clip(add_noise(clamped, vector.scale), -largest, largest)
    return sent


def opened(total: Integers, vector: SumVector) -> Floats:
    """A sum over sites in steps of the mechanism's grid, float64."""
    values: Floats = total.astype(np.float64) * vector.divisor
    return values


def largest_for(num_sites: int) -> int:
    """B: what each of so many sites may send at most, so that their sum stays below 2^31."""
    return (_HALF_RANGE - 1) // num_sites


def has_room(vector: SumVector, largest: int) -> bool:
    """Whether at least half of B is left for the sum, beside the noise."""
    return 2 * _TAIL * vector.scale < largest
