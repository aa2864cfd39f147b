"""Scores from noised tables of counts, with standard errors that include the noise.

Every figure is a smooth function of counts, so its error follows from its gradient (delta method):
each count varies as a Poisson count does, because the rows are a sample, and by the noise. Negative
counts are taken as they are, which keeps sums unbiased. A figure whose denominator does not stand
out of its own noise by two standard deviations is not defined.

The area under a curve counts pairs in one bin as half, so it misses what the curve has inside bins.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedistill.evaluate.figures import Figure, Floats, Part

_CLEAR = 2.0
"""Standard deviations of noise by which a denominator must exceed zero."""


class FederatedClass(Part):
    """How well one class is found on held-out rows. None: not defined."""

    recall: Figure
    recall_standard_error: Figure


class FederatedScores(Part):
    """The shipped student on rows that the sites held out, from noised counts. None: not defined.

    Attributes:
        accuracy: Share of units whose most probable class is the label.
        accuracy_standard_error: Of `accuracy`: rows being a sample, and noise.
        auc: Area under the ROC curve; beyond two classes the mean over one-vs-rest curves.
        auc_standard_error: Of `auc`, likewise.
        classes: By class.
        confusion: True class by predicted class, in noised counts of units.
        units: Held-out units of all sites, noised.
        noise_std: Standard deviation of the noise in each count of scores.
        sites: Whose rows are in it.
    """

    accuracy: Figure
    accuracy_standard_error: Figure
    auc: Figure
    auc_standard_error: Figure
    classes: Mapping[str, FederatedClass]
    confusion: tuple[tuple[float, ...], ...]
    units: float
    noise_std: float
    sites: tuple[str, ...]


def federated_scores(
    confusion: Floats,
    scores: Floats,
    *,
    confusion_std: Floats,
    score_std: float,
    classes: Sequence[str],
    sites: Sequence[str],
) -> FederatedScores:
    """All figures of noised tables.

    Args:
        confusion: (K, K) true class by predicted class.
        scores: (num_curves, 2, num_bins): others and own of each curve, by rising probability.
        confusion_std: (K, K) standard deviation of the noise in each count of `confusion`.
        score_std: The same for each of `scores`.
        classes: Names of the K classes.
        sites: Whose counts these are.
    """
    accuracy, accuracy_error = _share(np.eye(len(classes)), confusion, confusion_std)
    area, area_error = _macro_area(scores, score_std)
    by_class = {}
    for place, name in enumerate(classes):
        own = np.zeros(len(classes))
        own[place] = 1.0
        recall, error = _share(own, confusion[place], confusion_std[place])
        by_class[name] = FederatedClass(recall=recall, recall_standard_error=error)
    return FederatedScores(
        accuracy=accuracy,
        accuracy_standard_error=accuracy_error,
        auc=area,
        auc_standard_error=area_error,
        classes=by_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        units=float(confusion.sum()),
        noise_std=score_std,
        sites=tuple(sites),
    )


def _share(chosen: Floats, counts: Floats, std: Floats) -> tuple[float | None, float | None]:
    """The share of `counts` that is `chosen` (0 or 1 each), and its standard error."""
    total = float(counts.sum())
    if total <= _CLEAR * float(np.linalg.norm(std)):
        return None, None
    share = float((chosen * counts).sum()) / total
    gradient = (chosen - share) / total
    variance = float((gradient**2 * (np.maximum(counts, 0.0) + std**2)).sum())
    return _possible(share), float(np.sqrt(variance))


def _macro_area(scores: Floats, std: float) -> tuple[float | None, float | None]:
    """Mean area of the curves that are defined, and its standard error.

    Noise is independent from curve to curve. The rows are the same for all, so their part of the
    error is at most the mean of the curves' parts.
    """
    curves = [found for others, own in scores if (found := _area(others, own, std)) is not None]
    if not curves:
        return None, None
    areas, sampling, noise = np.array(curves).T
    error = np.hypot(sampling.mean(), np.linalg.norm(noise) / len(curves))
    return _possible(float(areas.mean())), float(error)


def _area(others: Floats, own: Floats, std: float) -> tuple[float, float, float] | None:
    """Area, and the standard errors that come from rows and from noise; None: not defined.

    The area is the mean of `wins` over pairs of a record of the class and one of another. Noise on
    both sides adds a term of second order, which counts where noise is large.
    """
    clear = _CLEAR * std * np.sqrt(len(own))
    if own.sum() <= clear or others.sum() <= clear:
        return None
    bins = np.arange(len(own))
    wins = 0.5 * (1.0 + np.sign(bins[:, None] - bins[None, :]))
    own_share, other_share = own / own.sum(), others / others.sum()
    area = float(own_share @ wins @ other_share)
    by_own = (wins @ other_share - area) / own.sum()
    by_other = (own_share @ wins - area) / others.sum()
    sampling = by_own**2 @ np.maximum(own, 0.0) + by_other**2 @ np.maximum(others, 0.0)
    both = std**2 * np.linalg.norm(wins - area) / (own.sum() * others.sum())
    noise = std**2 * (by_own @ by_own + by_other @ by_other) + both**2
    return area, float(np.sqrt(sampling)), float(np.sqrt(noise))


def _possible(share: float) -> float:
    """A share that noise took out of [0, 1], drawn back to the end."""
    return min(max(share, 0.0), 1.0)
