"""What each site gains from joining: the shared student against the site's own models.

For simulations only: it needs each site's private rows, and how many they are is private too.
"""

from fedistill.evaluate.figures import Count, Figure, Floats, Ints, Part
from fedistill.evaluate.metrics import Difference, Scores, auc_difference, score


class Comparison(Part):
    """The shared student against one site's own models, on the same public test rows.

    Attributes:
        test_rows: Number of rows that all are scored on.
        local: The site's own best model of its rows alone, without privacy.
        local_private: What its own noised answers alone yield, with differential privacy.
        student: The shared student, as shipped.
        gain: AUC of the student less that of `local`.
        gain_private: AUC of the student less that of `local_private`.
    """

    test_rows: Count
    local: Scores
    local_private: Scores
    student: Scores
    gain: Difference
    gain_private: Difference


class SiteComparison(Part):
    """What one site put in and what it gains.

    Attributes:
        rows: Private rows that fit the schema.
        misfit_rows: Private rows that do not fit it and were left aside.
        weight: The site's share of the ensemble, None where it has none.
        everyone: On all public test rows.
        own: On the public test rows of this site's kind, None where the data names no sites.
    """

    rows: Count
    misfit_rows: Count = 0
    weight: Figure = None
    everyone: Comparison
    own: Comparison | None = None


def compare(
    *, local: Floats | None, local_private: Floats | None, student: Floats, labels: Ints
) -> Comparison:
    """Score a site's own models and the shared student on the same rows.

    Args:
        local: (n, num_classes) probabilities of the site's own model without privacy, or None
            where there is none: its figures are then not defined.
        local_private: The same of its own model with differential privacy.
        student: The same of the shared student.
        labels: (n,), integers in [0, num_classes).
    """
    return Comparison(
        test_rows=len(labels),
        local=_scored(local, labels),
        local_private=_scored(local_private, labels),
        student=score(student, labels),
        gain=_gain(student, local, labels),
        gain_private=_gain(student, local_private, labels),
    )


def _scored(probabilities: Floats | None, labels: Ints) -> Scores:
    if probabilities is None:
        return Scores(auc=None, accuracy=None, log_loss=None, ece=None)
    return score(probabilities, labels)


def _gain(student: Floats, own: Floats | None, labels: Ints) -> Difference:
    if own is None:
        return Difference(value=None, standard_error=None)
    return auc_difference(student, own, labels)
