"""Scores of predicted class probabilities against labels, and the error of the test split.

Every figure is a fraction, or None where the rows do not define it; nothing here raises for
degenerate predictions. scikit-learn and SciPy are imported where they are used: the processes of
a run share little memory.
"""

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ECE_BINS = 15


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


Figure = Annotated[float | None, BeforeValidator(_finite)]
"""A number that may be undefined: what is infinite or not a number becomes None."""


class Scores(BaseModel):
    """How good predicted probabilities are on labelled rows. None: not defined on those rows.

    Attributes:
        auc: Area under the ROC curve; beyond two classes the mean over one-vs-rest curves.
        accuracy: Share of rows whose most probable class is the label.
        log_loss: Mean negative natural logarithm of the label's probability, in nats.
        ece: Expected calibration error of the most probable class, 15 equal-mass bins.
        auc_standard_error: Standard error of `auc` that comes from the rows being a sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: Figure
    accuracy: Figure
    log_loss: Figure
    ece: Figure
    auc_standard_error: Figure = None


def score(probabilities: Floats, labels: Ints) -> Scores:
    """Score `probabilities` (n, num_classes) against `labels` (n,), integers in [0, num_classes).

    Classes without a row, or that hold all rows, have no ROC curve: `auc` averages over the others
    and is None when there are none. Without rows, or with a probability that is not finite, every
    figure is None. Rows are normalized to sum to one.
    """
    if len(labels) == 0 or not np.isfinite(probabilities).all():
        return Scores(auc=None, accuracy=None, log_loss=None, ece=None)
    from sklearn.metrics import accuracy_score, log_loss

    rows = _normalized(np.asarray(probabilities, dtype=np.float64))
    predicted = rows.argmax(axis=1)
    return Scores(
        auc=auc(rows, labels),
        accuracy=float(accuracy_score(labels, predicted)),
        log_loss=float(log_loss(labels, rows, labels=np.arange(rows.shape[1]))),
        ece=expected_calibration_error(rows.max(axis=1), predicted == labels),
        auc_standard_error=auc_standard_error(rows, labels),
    )


def auc(probabilities: Floats, labels: Ints) -> float | None:
    """Area under the ROC curve of `probabilities` (n, num_classes), macro one-vs-rest beyond two.

    None when no class has both a row of its own and a row of another class.
    """
    from sklearn.metrics import roc_auc_score

    curves = [
        float(roc_auc_score(labels == column, probabilities[:, column]))
        for column in _ranked_classes(probabilities, labels)
    ]
    return float(np.mean(curves)) if curves else None


def auc_standard_error(probabilities: Floats, labels: Ints) -> float | None:
    """Standard error of `auc`, by the method of DeLong, DeLong and Clarke-Pearson (1988).

    A row's placement value is the share of rows of the other side that it is ranked rightly
    against; the AUC is their mean, and its variance the sum of the two sides' variances of the
    mean. Beyond two classes a row's deviations are averaged over the one-vs-rest curves first, so
    the correlation between curves counts. None when a curve has a side of fewer than two rows.
    """
    from scipy.stats import rankdata

    deviations = []
    for column in _ranked_classes(probabilities, labels):
        inside = labels == column
        ins, outs = int(inside.sum()), int((~inside).sum())
        if min(ins, outs) < 2:
            return None
        scores = probabilities[:, column]
        ranks = rankdata(scores)
        placements = np.empty(len(labels))
        placements[inside] = (ranks[inside] - rankdata(scores[inside])) / outs
        placements[~inside] = 1 - (ranks[~inside] - rankdata(scores[~inside])) / ins
        area = placements[inside].mean()
        weights = np.where(inside, 1 / np.sqrt(ins * (ins - 1)), 1 / np.sqrt(outs * (outs - 1)))
        deviations.append((placements - area) * weights)
    if not deviations:
        return None
    return float(np.linalg.norm(np.mean(deviations, axis=0)))


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


def _ranked_classes(probabilities: Floats, labels: Ints) -> list[int]:
    """Columns whose one-vs-rest curve exists: the positive class alone when there are two."""
    classes = probabilities.shape[1]
    columns = [1] if classes == 2 else range(classes)
    return [column for column in columns if 0 < np.count_nonzero(labels == column) < len(labels)]


def _normalized(rows: Floats) -> Floats:
    totals = rows.sum(axis=1, keepdims=True)
    uniform = np.full_like(rows, 1 / rows.shape[1])
    np.divide(rows, totals, out=uniform, where=totals > 0)
    return uniform
