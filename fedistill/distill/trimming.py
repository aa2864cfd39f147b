"""The sites' answers combined so that a few of them cannot move the result far.

Coordinate-wise trimmed mean, and its limit the coordinate-wise median (Yin, Chen, Ramchandran and
Bartlett 2018, "Byzantine-robust distributed learning", definitions 1 and 2). In every direction
and class the `trim` least and the `trim` greatest answers are cut, and what is left is averaged.
While at most `trim` sites lie, the result lies between the least and the greatest honest answer,
whatever the others send. Each site's stated gain, noise and sampling error are trimmed alike, so
that no site can claim to be precise for all.

Output law, which denoising needs: a trimmed mean of n normals of one variance has `normal_factor`
times the variance of their mean. Sites of unlike noise are taken for sites of the trimmed one.

Post-processing of releases: no private row is read, nothing is charged.
"""

from functools import lru_cache

import numpy as np
from scipy.special import betaincinv
from scipy.stats import norm

from fedistill.distill.weighting import Answers, Combined
from fedistill.labels import Floats

_NODES = 120
_MOST_KEPT = 20
"""Order statistics whose covariances are integrated; of more, the limit is half a percent off."""


def largest_trim(num_sites: int) -> int:
    """How many answers the median cuts at each end: all but the middle one or two."""
    return (num_sites - 1) // 2


def trimmed_mean(answers: Answers, trim: int) -> Combined:
    """The trimmed mean in every direction and class, with its law.

    Args:
        answers: Of `2 * trim + 1` sites or more.
        trim: Sites that are cut at each end.

    Raises:
        ValueError: There are fewer sites.
    """
    num_sites = len(answers.values)
    if not 0 <= trim <= largest_trim(num_sites):
        raise ValueError(
            f"trim={trim} must be at most {largest_trim(num_sites)} for {num_sites} sites: "
            "lower trim or ask more sites"
        )
    order = np.argsort(answers.values, axis=0, kind="stable")[trim : num_sites - trim]
    kept = np.zeros(answers.values.shape)
    np.put_along_axis(kept, order, 1 / len(order), axis=0)
    values = np.take_along_axis(answers.values, order, axis=0).mean(axis=0)
    factor = normal_factor(num_sites, trim) / num_sites
    return Combined(
        # Of three classes or more, trimmed one by one, the sum is not quite zero.
        values=values - values.mean(axis=1, keepdims=True),
        gain=_trimmed(answers.gain, trim),
        noise=factor * _trimmed(np.sqrt(answers.noise), trim) ** 2,
        sampling=factor * _trimmed(np.sqrt(answers.sampling), trim) ** 2,
        weights=kept.mean(axis=2),
    )


@lru_cache(maxsize=64)
def normal_factor(num_sites: int, trim: int) -> float:
    """Variance of the trimmed mean of normals, as a multiple of their mean's variance.

    1 without trimming, towards pi / 2 for the median of many. By the covariances of order
    statistics: the j-th of n uniforms is Beta(j, n - j + 1), the i-th before it is that times
    Beta(i, j - i), independent (David and Nagaraja 2003, section 2.5). Where more than 20 are
    kept, by the limit law (Stigler 1973).
    """
    if trim == 0:
        return 1.0
    if num_sites - 2 * trim > _MOST_KEPT:
        return _limit_factor(trim / num_sites)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    levels, weights = (nodes + 1) / 2, weights / 2
    total = 0.0
    for j in range(trim + 1, num_sites - trim + 1):
        later = betaincinv(j, num_sites - j + 1, levels)
        total += float(weights @ norm.ppf(later) ** 2)
        for i in range(trim + 1, j):
            earlier = later[:, None] * betaincinv(i, j - i, levels)
            total += 2 * float((weights * norm.ppf(later)) @ norm.ppf(earlier) @ weights)
    return num_sites * total / (num_sites - 2 * trim) ** 2


def _limit_factor(share: float) -> float:
    """For many sites, of which this share is cut at each end."""
    edge = float(norm.isf(share))
    middle = 1 - 2 * share - 2 * edge * float(norm.pdf(edge))
    return (middle + 2 * share * edge**2) / (1 - 2 * share) ** 2


def _trimmed(values: Floats, trim: int) -> Floats:
    """Trimmed mean over the first axis."""
    mean: Floats = np.sort(values, axis=0)[trim : len(values) - trim].mean(axis=0)
    return mean
