"""How far an AUC strays because the rows are a sample, after DeLong.

DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
operating characteristic curves", Biometrics 44 (1988). A row's placement value is the share of
rows of the other side that it is ranked rightly against; the AUC is their mean on either side.
"""

import numpy as np

from fedistill.evaluate.figures import Floats, Ints


def ranked_classes(num_classes: int, labels: Ints) -> list[int]:
    """Classes whose one-vs-rest curve exists: the positive class alone when there are two."""
    columns = [1] if num_classes == 2 else range(num_classes)
    return [column for column in columns if 0 < np.count_nonzero(labels == column) < len(labels)]


def deviations(probabilities: Floats, labels: Ints) -> Floats | None:
    """What each row adds to the error of the AUC, (n,): its norm is the standard error.

    The variance of an AUC is the sum of the two sides' variances of their mean placement value.
    Beyond two classes a row's deviations are averaged over the one-vs-rest curves, so that the
    correlation between curves counts; in the same way the norm of the difference of two models'
    deviations is the standard error of the difference of their AUCs. None when no curve exists or
    one has a side of fewer than two rows.
    """
    curves = []
    for column in ranked_classes(probabilities.shape[1], labels):
        inside = labels == column
        if min(np.count_nonzero(inside), np.count_nonzero(~inside)) < 2:
            return None
        curves.append(_curve_deviations(probabilities[:, column], inside))
    return np.asarray(np.mean(curves, axis=0)) if curves else None


def _curve_deviations(scores: Floats, inside: np.ndarray) -> Floats:
    from scipy.stats import rankdata

    ins, outs = np.count_nonzero(inside), np.count_nonzero(~inside)
    ranks = rankdata(scores)
    placements = np.empty(len(scores))
    placements[inside] = (ranks[inside] - rankdata(scores[inside])) / outs
    placements[~inside] = 1 - (ranks[~inside] - rankdata(scores[~inside])) / ins
    weights = np.where(inside, 1 / np.sqrt(ins * (ins - 1)), 1 / np.sqrt(outs * (outs - 1)))
    return np.asarray((placements - placements[inside].mean()) * weights)
