"""Whether predicted probabilities mean what they say."""

import math

import numpy as np
import numpy.typing as npt

from fedistill.evaluate.figures import Count, Floats, Ints, Part

ECE_BINS = 15
CALIBRATION_BINS = 10
NORMAL_95 = 1.959964
"""95% of a normal law lie within so many standard deviations of its mean."""


class CalibrationBin(Part):
    """Rows with similar predictions, and how often what was predicted was so.

    Attributes:
        predicted: Mean predicted probability of the rows.
        observed: Share of the rows of which it was so.
        low: Lower end of the 95% interval of `observed` (Wilson 1927).
        high: Its upper end.
        rows: Number of rows.
    """

    predicted: float
    observed: float
    low: float
    high: float
    rows: Count


def calibration(probabilities: Floats, labels: Ints) -> tuple[CalibrationBin, ...]:
    """Up to 10 bins of equal mass, from the lowest prediction to the highest.

    For two classes the prediction is the probability of class 1, beyond that the probability of
    the most probable class. Equal predictions share a bin, so bins may be fewer and of unequal
    mass. Empty without rows or with a probability that is not finite.

    Args:
        probabilities: (n, num_classes), each row sums to one.
        labels: (n,), integers in [0, num_classes).
    """
    if len(labels) == 0 or not np.isfinite(probabilities).all():
        return ()
    from scipy.stats import rankdata

    if probabilities.shape[1] == 2:
        predictions, happened = probabilities[:, 1], labels == 1
    else:
        predictions, happened = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = (rankdata(predictions) - 0.5) / len(labels)
    member = np.floor(places * CALIBRATION_BINS + 1e-9).astype(np.int64)
    inside = (member == each for each in np.unique(member))
    return tuple(_bin(predictions[rows], happened[rows]) for rows in inside)


def expected_calibration_error(
    confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Mean distance between `confidence` (n,) and accuracy, over bins of equal mass.

    Bin edges are quantiles of the confidence and equal confidences share a bin, so a constant
    predictor fills one bin. Top-label form of Guo et al. 2017; equal mass as in Nixon et al. 2019.
    """
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1]))
    member = np.searchsorted(edges, confidence, side="right")
    gaps = np.bincount(member, weights=confidence - correct, minlength=len(edges) + 1)
    return float(np.abs(gaps).sum() / len(confidence))


def wilson_interval(count: int, rows: int) -> tuple[float, float]:
    """The 95% interval of a share of which `count` of `rows` independent rows were seen."""
    share, square = count / rows, NORMAL_95**2 / rows
    middle = (share + square / 2) / (1 + square)
    reach = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # Rounding must not leave the share itself outside.
    return min(max(0.0, middle - reach), share), max(min(1.0, middle + reach), share)


def _bin(predictions: Floats, happened: npt.NDArray[np.bool_]) -> CalibrationBin:
    rows, count = len(happened), int(happened.sum())
    low, high = wilson_interval(count, rows)
    return CalibrationBin(
        predicted=float(predictions.mean()), observed=count / rows, low=low, high=high, rows=rows
    )
