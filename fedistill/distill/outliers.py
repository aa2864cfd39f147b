"""Sites whose answers differ from the others' by more than noise and honest deviations explain.

A random-effects variance shift model (Gumedze and Jackson 2011, "A random effects variance shift
model for detecting and accommodating outliers in meta-analysis"). For each site the truth and the
deviations are fitted on the other sites alone, which gives a normal law of what this site should
answer. The sum of squared standardised misfits is chi-square under it; the Wilson-Hilferty cube
root (1931) turns that into standard deviations. A site beyond `LIMIT` gets a further variance of
its own, the one of greatest likelihood: it counts as little as its misfit says, and what it says
of its own noise saves it nothing.

Directions beyond the leading ones decide, because honest sites with unlike class shares differ in
the leading ones just as a site with false labels does: no server can tell the two apart. All
directions together lower a weight only from `FAR_LIMIT` on, and are for people to read.

Post-processing of releases: no private row is read, nothing is charged.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.distill.weighting import (
    DEVIATIONS,
    PRIORS,
    SMALLEST_VARIANCE,
    Answers,
    informative_directions,
)
from fedistill.labels import Floats

LIMIT = 5.0
"""Standard deviations from which on a site counts as an outlier."""

FAR_LIMIT = 50.0
"""The same in all directions, of which the leading ones differ between honest sites too."""

SMALLEST_FEDERATION = 3
"""Sites below which nobody can say who is the outlier."""

_PRIORS = PRIORS[::2]

_EXCESSES = np.concatenate([[0.0], np.logspace(-3, 9, 61)])
"""Grid of an outlier's further variance, in the truth's own units."""


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """How far each site is from the others.

    Attributes:
        scores: (num_sites,) standard deviations from what the others predict, in all directions.
        excess: (num_sites,) variance of an outlier's further deviation; 0 for all other sites.
    """

    scores: Floats
    excess: Floats


def no_outliers(num_sites: int) -> Outliers:
    """Nobody was compared."""
    return Outliers(scores=np.zeros(num_sites), excess=np.zeros(num_sites))


def find_outliers(answers: Answers) -> Outliers:
    """Compare every site with the others; less than half of the sites can be outliers.

    The farthest are set aside first, since they hide the next ones and make honest sites look odd.
    """
    num_sites = len(answers.values)
    if num_sites < SMALLEST_FEDERATION:
        return no_outliers(num_sites)
    trusted, excess = np.ones(num_sites, np.bool_), np.zeros(num_sites)
    beyond = answers.take(informative_directions(answers))
    for compared, limit in ((answers, FAR_LIMIT), (beyond, LIMIT)):
        before = trusted.copy()
        scores, found = _set_aside(compared, trusted, limit)
        excess = np.where(before, found, excess)
    overall, _ = _misfits(answers, trusted)
    return Outliers(
        scores=np.where(trusted, overall, np.maximum(overall, scores)),
        excess=np.where(trusted, 0.0, excess),
    )


def _set_aside(
    answers: Answers, trusted: npt.NDArray[np.bool_], limit: float
) -> tuple[Floats, Floats]:
    """Take trust from the sites beyond `limit`, in place; all scores and excesses without them."""
    most = (len(trusted) - 1) // 2
    while True:
        scores, excess = _misfits(answers, trusted)
        suspect = np.where(trusted & (excess > 0), scores, -np.inf)
        farthest = np.argsort(-suspect, kind="stable")[: most - int((~trusted).sum())]
        found = farthest[suspect[farthest] > max(limit, suspect.max() / 2)]
        if not len(found):
            return scores, excess
        trusted[found] = False


def _misfits(answers: Answers, trusted: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Each site's score against the other trusted sites, and its excess of greatest likelihood."""
    freedom = answers.values.shape[1] * (answers.values.shape[2] - 1)
    priors, deviations = _fitted_on_others(answers, trusted)
    noise = np.maximum(answers.variance, SMALLEST_VARIANCE)
    scores, excess = np.zeros(len(noise)), np.zeros(len(noise))
    for site, (prior, deviation) in enumerate(zip(priors, deviations, strict=True)):
        others = trusted & (np.arange(len(noise)) != site)
        gain, spread = answers.gain[others], noise[others] + answers.gain[others] ** 2 * deviation
        truth = prior + answers.common
        left = truth / (1 + truth * (gain**2 / spread).sum(axis=0))
        mean = left[:, None] * np.einsum("sf,sfc->fc", gain / spread, answers.values[others])
        own = answers.gain[site]
        squares = ((answers.values[site] - own[:, None] * mean) ** 2).sum(axis=1)
        variance = noise[site] + own**2 * (left + deviation)
        scores[site] = _standard_deviations((squares / variance).sum(), freedom)
        shifted = variance + own**2 * _EXCESSES[:, None]
        each = (answers.values.shape[2] - 1) * np.log(shifted) + squares / shifted
        excess[site] = _EXCESSES[each.sum(axis=1).argmin()]
    return scores, excess


def _fitted_on_others(answers: Answers, trusted: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Prior variance of the truth and of deviations, (num_sites,) each, without the site itself."""
    num_sites, _, num_classes = answers.values.shape
    gain, used = answers.gain, trusted[:, None].astype(np.float64)
    noise = np.maximum(answers.variance, SMALLEST_VARIANCE)
    squares = (answers.values**2).sum(axis=2)
    best = np.full(num_sites, -np.inf)
    priors, deviations = np.zeros(num_sites), np.zeros(num_sites)
    for share in DEVIATIONS:
        for prior in _PRIORS:
            spread = noise + gain**2 * share * prior
            truth = prior + answers.common
            precision = _sum_of_others(used * gain**2 / spread)
            pull = _sum_of_others((used * gain / spread)[:, :, None] * answers.values)
            log_determinant = _sum_of_others(used * np.log(spread)) + np.log1p(truth * precision)
            explained = truth * (pull**2).sum(axis=2) / (1 + truth * precision)
            misfit = _sum_of_others(used * squares / spread) - explained
            likelihood = -0.5 * ((num_classes - 1) * log_determinant + misfit).sum(axis=1)
            better = likelihood > best
            best[better], priors[better] = likelihood[better], prior
            deviations[better] = share * prior
    return priors, deviations


def _sum_of_others(values: Floats) -> Floats:
    """For every site the sum over all others, without taking its own away from a total.

    A site that claims to be noiseless has a term so large that a difference would leave rounding.
    """
    total = np.zeros(values.shape)
    total[1:] += np.cumsum(values[:-1], axis=0)
    total[:-1] += np.cumsum(values[:0:-1], axis=0)[::-1]
    return total


def _standard_deviations(chi_square: float, freedom: int) -> float:
    """The normal score of a chi-square variable, by the Wilson-Hilferty cube root."""
    spread = 2 / (9 * freedom)
    return float((np.cbrt(chi_square / freedom) - (1 - spread)) / np.sqrt(spread))
