"""What noise asks of training: weights for sure rows and rare classes, labels spread on a graph.

Noise drowns rare classes first: their few rows carry little signal beside noise that is the same
for every class. All of it is post-processing of the target; no private row is read.
"""

import numpy as np

from fedistill.distill.trainer import SMALLEST_SPREAD
from fedistill.errors import ConfigError
from fedistill.labels import EnsembleTarget, Floats

_SMALLEST_SHARE = 1e-12


def confidence_weights(target: EnsembleTarget) -> Floats:
    """Weights of rows, (num_proxy,), of mean 1: the surer a row's target, the more it counts.

    1 / (1 + mean_k (std_ik / spread_k)^2) with spread_k the deviation of column k over the rows:
    inverse-variance weights for a student that errs by about one spread itself, which keeps a few
    near-exact rows from outweighing all others. Rows of equal std count alike.
    """
    spread = target.log_odds.std(axis=0)
    scale = np.where(spread > SMALLEST_SPREAD, spread, 1.0)
    weights = 1 / (1 + ((target.std / scale) ** 2).mean(axis=1))
    return _of_mean_one(weights)


def rare_class_weights(
    probabilities: Floats, *, beta: float = 0.999, at_most: float = 10.0
) -> Floats:
    """Weights of rows, (num_rows,), of mean 1: rows of rare classes count more.

    A class of n expected rows weighs (1 - beta) / (1 - beta^n), and a row the average of its
    classes' weights under its own soft label. Cui et al. 2019, "Class-Balanced Loss Based on
    Effective Number of Samples", section 4, with expected in place of counted rows.

    Args:
        probabilities: (num_rows, num_classes); noised entries below 0 count as 0.
        beta: In [0, 1): 0 weighs all alike, towards 1 by the inverse of the class's rows.
        at_most: Greatest ratio between two classes' weights, at least 1. It bounds what noise
            can do in a class with hardly a row.

    Raises:
        ConfigError: `beta` or `at_most` is out of bounds.
    """
    if not 0 <= beta < 1:
        raise ConfigError(f"beta={beta} must be at least 0 and below 1: use 0 for equal weights")
    if not at_most >= 1:
        raise ConfigError(f"at_most={at_most} must be at least 1: use 1 for equal weights")
    likely = _distributions(probabilities)
    rows = np.maximum(likely.sum(axis=0), 1.0)
    classes = (1 - beta) / (1 - beta**rows)
    return _of_mean_one(likely @ np.minimum(classes, at_most * classes.min()))


def propagate_labels(
    features: Floats,
    labels: Floats,
    *,
    neighbours: int = 10,
    alpha: float = 0.8,
    steps: int = 20,
) -> Floats:
    """Labels averaged over public rows that lie close: F <- alpha P F + (1 - alpha) labels.

    P moves to a neighbour in proportion to exp(-distance^2 / (2 scale^2)) on the symmetric graph
    of nearest neighbours; scale is the median distance to the farthest of them. Zhou et al. 2004,
    "Learning with Local and Global Consistency", section 2, in their variant with P = D^-1 W in
    place of the symmetric normalisation: rows of P sum to one, so probabilities stay
    probabilities. Linear in the labels, so noise of mean zero stays so and is averaged.
    scikit-learn's LabelSpreading takes hard labels only.

    Args:
        features: (num_rows, num_features), public.
        labels: (num_rows, num_classes), soft and possibly noised: probabilities or log-odds.
        neighbours: Of each row, at least 1; all other rows where there are fewer.
        alpha: Share that comes from the neighbours, in [0, 1).
        steps: Rounds, at least 0. As many as it takes give (1 - alpha) (I - alpha P)^-1 labels.

    Returns:
        (num_rows, num_classes).

    Raises:
        ConfigError: A setting is out of bounds.
    """
    if neighbours < 1:
        raise ConfigError(f"neighbours={neighbours} must be at least 1: raise it")
    if not 0 <= alpha < 1:
        raise ConfigError(f"alpha={alpha} must be at least 0 and below 1: use 0 to keep the labels")
    if steps < 0:
        raise ConfigError(f"steps={steps} must be at least 0: use 0 to keep the labels")
    if len(features) < 2:
        return labels.copy()
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    count = min(neighbours, len(features) - 1)
    distances, places = NearestNeighbors(n_neighbors=count).fit(features).kneighbors()
    scale = np.median(distances[:, -1])
    # Rows that are mostly copies of each other have no scale: all neighbours then count alike.
    affinity = np.exp(-0.5 * (distances / scale) ** 2) if scale > 0 else np.ones_like(distances)
    # Far outliers keep a trace of affinity, or they would have no neighbour to divide by.
    affinity = np.maximum(affinity, _SMALLEST_SHARE)
    starts = np.arange(0, distances.size + 1, count)
    one_way = sparse.csr_array(
        (affinity.ravel(), places.ravel(), starts), shape=(len(features), len(features))
    )
    graph = one_way.maximum(one_way.T)
    moves = sparse.diags_array(1 / graph.sum(axis=1)) @ graph
    spread: Floats = labels.astype(np.float64)
    for _ in range(steps):
        spread = alpha * (moves @ spread) + (1 - alpha) * labels
    return spread


def _distributions(probabilities: Floats) -> Floats:
    """Rows that are non-negative and sum to one; uniform where nothing is positive."""
    positive = np.maximum(probabilities, 0.0)
    totals = positive.sum(axis=1, keepdims=True)
    shares = np.full_like(positive, 1 / positive.shape[1])
    np.divide(positive, totals, out=shares, where=totals > 0)
    return shares


def _of_mean_one(weights: Floats) -> Floats:
    scaled: Floats = weights / weights.mean()
    return scaled
