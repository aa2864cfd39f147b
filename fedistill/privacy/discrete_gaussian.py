"""Exact discrete Gaussian noise on integers, drawn by OpenDP.

The discrete Gaussian of scale s has P(x) proportional to exp(-x**2 / (2 s**2)) on the integers.
Adding it to every entry of an integer vector of L2 sensitivity D satisfies D**2 / (2 s**2)-zCDP:
Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Theorem 4 and
its extension to vectors. OpenDP's sampler is the paper's Algorithm 3, in exact rational arithmetic
on the exact value of the float `scale`.

Its random bits come from OpenSSL's `RAND_bytes`, a CSPRNG seeded by the operating system and
reseeded after a fork. There is no generator and no seed to pass, here or anywhere above.

Long vectors are noised in pieces, one thread a core. `RAND_bytes` may be called by several threads:
each has a CSPRNG of its own, seeded from one that the operating system seeds (OpenSSL's RAND(7)).
So the entries of all pieces are independent, as those of one are.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from fedistill.privacy.grid import Integers

_HEADROOM = 2**62
_TAIL = 40
"""P(|noise| > 40 scales) is below exp(-800)."""

_FEWEST_ENTRIES = 1_000
"""Entries of a piece at least: about 10 ms of drawing, for which a thread is worth its start."""


def add_noise(sums: Integers, scale: float) -> Integers:
    """`sums` plus independent discrete Gaussian noise of `scale`, int64, any shape.

    Sums beyond +-(2**62 - 40 scale) are clamped to it before the noise. Clamping each entry does
    not raise the sensitivity, and unlike an error it tells nobody about the rows; a grid on which
    it happens is far too fine.

    Args:
        sums: The exact sums whose L2 sensitivity the event states.
        scale: Parameter of the noise in grid steps; its standard deviation to within 1e-4
            from scale 0.8 up. Public.

    Raises:
        ValueError: `sums` is not int64, or not 0 < 40 scale < 2**62.
    """
    if sums.dtype != np.int64:
        raise ValueError(f"sums must be int64, not {sums.dtype}")
    if not 0 < _TAIL * scale < _HEADROOM:
        raise ValueError(f"scale={scale} must be above 0 and below {_HEADROOM / _TAIL:.3g}")
    if sums.size == 0:
        return sums.copy()
    bound = _HEADROOM - math.ceil(_TAIL * scale)
    clamped = np.clip(sums, -bound, bound)
    noised = _gaussian(scale)(clamped.ravel().tolist())
    return np.array(noised, dtype=np.int64).reshape(sums.shape)


def scale_for(sensitivity: int, rho: float) -> float:
    """The smallest float scale whose noise makes `sensitivity` cost at most `rho` of zCDP.

    Rounded up: sensitivity**2 <= 2 rho scale**2 holds in exact arithmetic.

    Raises:
        ValueError: `sensitivity` is not a whole number of at least 1, or `rho` is not positive.
    """
    if not isinstance(sensitivity, int | np.integer) or sensitivity < 1:
        raise ValueError(f"sensitivity={sensitivity} must be a whole number of at least 1")
    return scale_for_squared(int(sensitivity) ** 2, rho)


def scale_for_squared(squared_sensitivity: int, rho: float) -> float:
    """As `scale_for`, where the sensitivity is the square root of a whole number.

    Raises:
        ValueError: `squared_sensitivity` is not a whole number of at least 1, or `rho` is not
            positive.
    """
    if not isinstance(squared_sensitivity, int | np.integer) or squared_sensitivity < 1:
        raise ValueError(
            f"squared_sensitivity={squared_sensitivity} must be a whole number of at least 1"
        )
    if not 0 < rho < math.inf:
        raise ValueError(f"rho={rho} must be a positive number")
    needed = Fraction(int(squared_sensitivity)) / (2 * Fraction(rho))
    scale = math.sqrt(int(squared_sensitivity)) / math.sqrt(2 * rho)
    while Fraction(scale) ** 2 >= needed:
        scale = math.nextafter(scale, 0.0)
    while Fraction(scale) ** 2 < needed:
        scale = math.nextafter(scale, math.inf)
    return scale


def _gaussian(scale: float) -> Callable[[list[int]], list[int]]:
    """Adds noise to a list of integers, each by itself, on as many cores as are worth it."""

    def noise(values: list[int]) -> list[int]:
        workers = max(1, min(_num_cores(), len(values) // _FEWEST_ENTRIES))
        if workers == 1:
            return list(_measurement(scale)(values))
        size = math.ceil(len(values) / workers)
        pieces = [values[start : start + size] for start in range(0, len(values), size)]
        # Threads of one call only: none is left that a fork could lose.
        with ThreadPoolExecutor(workers) as pool:
            return list(chain(*pool.map(lambda piece: _measurement(scale)(piece), pieces)))

    return noise


def _num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _measurement(scale: float) -> Any:
    # opendp.prelude would pull in scikit-learn; these modules do not.
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    return make_gaussian(vector_domain(atom_domain(T="i64")), l2_distance(T="f64"), float(scale))
