"""Scores of predicted class probabilities against labels, and the error of the test split.

Every figure is a fraction, or None where the rows do not define it; nothing here raises for
degenerate predictions. scikit-learn and SciPy are imported where they are used: the processes of
a run share little memory.
"""

import numpy as np

from fedistill.evaluate import delong
from fedistill.evaluate.calibration import expected_calibration_error
from fedistill.evaluate.figures import Count, Figure, Floats, Ints, Part


class Scores(Part):
    """How good predicted probabilities are on labelled rows. None: not defined on those rows.

    Attributes:
        auc: Area under the ROC curve; beyond two classes the mean over one-vs-rest curves.
        accuracy: Share of rows whose most probable class is the label.
        log_loss: Mean negative natural logarithm of the label's probability, in nats.
        ece: Expected calibration error of the most probable class, 15 equal-mass bins.
        auc_standard_error: Standard error of `auc` that comes from the rows being a sample.
    """

    auc: Figure
    accuracy: Figure
    log_loss: Figure
    ece: Figure
    auc_standard_error: Figure = None


class ClassScores(Part):
    """How well one class is found. None: not defined on those rows.

    Attributes:
        recall: Share of the class's rows whose most probable class it is.
        precision: Share of the rows whose most probable class it is that are the class's.
        auprc: Area under the precision-recall curve against all other classes, as average
            precision. Guessing scores the class's share of the rows.
        rows: Number of rows of the class.
    """

    recall: Figure
    precision: Figure
    auprc: Figure
    rows: Count


class Difference(Part):
    """How much the AUC of one model exceeds another's on the same rows. None: not defined.

    Attributes:
        value: The one AUC less the other.
        standard_error: Standard error of `value` that comes from the rows being a sample.
    """

    value: Figure
    standard_error: Figure


def score(probabilities: Floats, labels: Ints) -> Scores:
    """Score `probabilities` (n, num_classes) against `labels` (n,), integers in [0, num_classes).

    Classes without a row, or that hold all rows, have no ROC curve: `auc` averages over the others
    and is None when there are none. Without rows, or with a probability that is not finite, every
    figure is None. Rows are normalized to sum to one.
    """
    if not _scorable(probabilities, labels):
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


def class_scores(probabilities: Floats, labels: Ints) -> tuple[ClassScores, ...]:
    """Recall, precision and area under the precision-recall curve, class by class.

    Args:
        probabilities: (n, num_classes).
        labels: (n,), integers in [0, num_classes).
    """
    counts = [int(np.count_nonzero(labels == place)) for place in range(probabilities.shape[1])]
    if not _scorable(probabilities, labels):
        return tuple(
            ClassScores(recall=None, precision=None, auprc=None, rows=rows) for rows in counts
        )
    from sklearn.metrics import average_precision_score

    predicted = probabilities.argmax(axis=1)
    scores = []
    for place, rows in enumerate(counts):
        chosen = predicted == place
        right = int(np.count_nonzero(chosen & (labels == place)))
        area = average_precision_score(labels == place, probabilities[:, place]) if rows else None
        scores.append(
            ClassScores(
                recall=right / rows if rows else None,
                precision=right / int(chosen.sum()) if chosen.any() else None,
                auprc=area,
                rows=rows,
            )
        )
    return tuple(scores)


def auc(probabilities: Floats, labels: Ints) -> float | None:
    """Area under the ROC curve of `probabilities` (n, num_classes), macro one-vs-rest beyond two.

    None when no class has both a row of its own and a row of another class.
    """
    from sklearn.metrics import roc_auc_score

    curves = [
        float(roc_auc_score(labels == column, probabilities[:, column]))
        for column in delong.ranked_classes(probabilities.shape[1], labels)
    ]
    return float(np.mean(curves)) if curves else None


def auc_standard_error(probabilities: Floats, labels: Ints) -> float | None:
    """Standard error of `auc`, after DeLong. None when a curve has a side of fewer than two."""
    parts = delong.deviations(probabilities, labels)
    return None if parts is None else float(np.linalg.norm(parts))


def auc_difference(one: Floats, other: Floats, labels: Ints) -> Difference:
    """The AUC of `one` less that of `other` on the same rows, macro one-vs-rest beyond two classes.

    The standard error is DeLong's for correlated curves: what both models find hard on these rows
    cancels. It says nothing of how the models would differ had they been trained again.

    Args:
        one: (n, num_classes) probabilities.
        other: (n, num_classes) probabilities.
        labels: (n,), integers in [0, num_classes).
    """
    if not (_scorable(one, labels) and _scorable(other, labels)):
        return Difference(value=None, standard_error=None)
    first, second = auc(one, labels), auc(other, labels)
    value = None if first is None or second is None else first - second
    mine, theirs = delong.deviations(one, labels), delong.deviations(other, labels)
    error = None if mine is None or theirs is None else float(np.linalg.norm(mine - theirs))
    return Difference(value=value, standard_error=error)


def _scorable(probabilities: Floats, labels: Ints) -> bool:
    return len(labels) > 0 and bool(np.isfinite(probabilities).all())


def _normalized(rows: Floats) -> Floats:
    totals = rows.sum(axis=1, keepdims=True)
    uniform = np.full_like(rows, 1 / rows.shape[1])
    np.divide(rows, totals, out=uniform, where=totals > 0)
    return uniform
