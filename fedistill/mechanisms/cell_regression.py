"""Softmax regression on noised class counts of public cells: post-processing of `votes`.

Every record of a cell is given the features of the cell's centre, the mean of its proxy rows. The
log-likelihood is linear in the counts, so it takes negative ones as they are, its gradient stays
unbiased, and noise adds to it with a known variance. Shares of single cells and their log-odds,
which noise bends, are never formed.
"""

from dataclasses import dataclass

import numpy as np

from fedistill.features import ProxyBasis
from fedistill.features.public_cells import PublicCells
from fedistill.labels import Floats, LinearResponse, probabilities

RIDGE_PER_NOISE = 1.0
"""Ridge a unit of the noise's standard deviation in a count averaged over partitions."""

RIDGE_PER_ROW = 2e-3
_CURVATURE_BOUND = 0.5
_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class NoisedVotes:
    """Noised counts and what they say about the site's size.

    Attributes:
        counts: (num_cells, num_classes) float, noised; cells of all partitions.
        scale: Standard deviation of the noise in each.
        cells: The public cells.
        rows_at_least: Public lower bound on the site's rows, at least 1.
    """

    counts: Floats
    scale: float
    cells: PublicCells
    rows_at_least: int

    @property
    def count(self) -> float:
        """The site's rows, noised: every row votes once in each partition."""
        noised = float(self.counts.sum()) / self.cells.num_partitions
        return max(noised, float(self.rows_at_least), 1.0)


def fit_votes(basis: ProxyBasis, votes: NoisedVotes) -> Floats:
    """Weights (num_features, num_classes), rows summing to zero.

    Majorisation with Boehning's (1992) bound on the softmax's curvature: no step size, no failure.
    """
    cells = votes.cells
    centres = cell_centres(basis, cells)
    sizes = cell_sizes(votes)
    # A cell's counts sum to its size; what they sum to beyond it is seen to be noise.
    excess = (votes.counts.sum(axis=1) - sizes) / votes.counts.shape[1]
    pull = centres.T @ (votes.counts - excess[:, None]) / cells.num_partitions
    weighted = centres * (sizes / cells.num_partitions)[:, None]
    ridge = _ridge(votes.scale, cells, votes.count)
    bound = _CURVATURE_BOUND * centres.T @ weighted + ridge * np.eye(centres.shape[1])
    inverse = np.linalg.inv(bound)
    weights = np.zeros(pull.shape)
    for _ in range(_STEPS):
        answered = probabilities(centres @ (weights[:, 1:] - weights[:, :1]))
        weights = weights + inverse @ (pull - weighted.T @ answered - ridge * weights)
    centred: Floats = weights - weights.mean(axis=1, keepdims=True)
    return centred


def response_of_votes(
    basis: ProxyBasis, log_odds: Floats, cells: PublicCells, *, scale: float, count: float
) -> LinearResponse:
    """The law of weights fitted by `fit_votes`, linearised at the released labels.

    The fit solves (H + ridge) w = H truth + noise, with H the centres' second moment, each cell
    times its size and the softmax's curvature there, and noise of covariance (scale / P)^2 M^T M, M
    all centres. The gain states what the ridge takes away. What cells do not tell, differences
    within them, is not undone: other directions would leak into it.

    Args:
        basis: The proxy set's features.
        log_odds: (num_proxy, num_classes - 1) released.
        cells: The public cells.
        scale: Of the noise in each count.
        count: The site's noised rows.
    """
    ridge = _ridge(scale, cells, count)
    partitions = cells.num_partitions
    along = cell_centres(basis, cells) @ basis.eigenvectors
    curvatures = _curvatures(_mean_of_cells(log_odds, cells))
    weighted = along * (curvatures * count * cells.proxy_share / partitions)[:, None]
    inverse = np.linalg.inv(along.T @ weighted + ridge * np.eye(along.shape[1]))
    noise = along @ inverse * (scale / partitions)
    information = count * float(_curvatures(log_odds).mean()) * basis.eigenvalues
    return LinearResponse(
        gain=information / (information + ridge),
        noise_variance=np.maximum((noise**2).sum(axis=0), 1e-12),
        sampling_variance=1 / information,
    )


def cell_sizes(votes: NoisedVotes) -> Floats:
    """Records in each cell, (num_cells,) at least 0: noised totals drawn to the public shares.

    Empirical Bayes: a cell's size is count * proxy share, plus Poisson spread, plus a relative
    deviation of the site from the proxy set whose variance all cells share.
    """
    expected = votes.count * votes.cells.proxy_share
    beyond = votes.counts.sum(axis=1) - expected
    noise = votes.counts.shape[1] * votes.scale**2
    unexplained = float((beyond**2 - noise - expected).sum())
    deviation = max(unexplained, 0.0) / float((expected**2).sum())
    prior = deviation * expected**2 + expected
    sizes: Floats = np.maximum(expected + prior / (prior + noise) * beyond, 0.0)
    return sizes


def cell_centres(basis: ProxyBasis, cells: PublicCells) -> Floats:
    """Mean features of each cell's proxy rows, (num_cells, num_features); zero for an empty one."""
    return _mean_of_cells(basis.values, cells)


def _mean_of_cells(values: Floats, cells: PublicCells) -> Floats:
    """Means over each cell's proxy rows: (num_proxy, m) to (num_cells, m)."""
    sums = np.zeros((cells.num_cells, values.shape[1]))
    for partition in cells.of_proxy:
        np.add.at(sums, partition, values)
    means: Floats = sums / np.maximum(cells.proxy_share * len(values), 1.0)[:, None]
    return means


def _curvatures(log_odds: Floats) -> Floats:
    """Mean eigenvalue of the softmax's curvature for each row of log-odds against class 0."""
    shares = probabilities(log_odds)
    traces = (shares * (1 - shares)).sum(axis=1)
    curvatures: Floats = np.maximum(traces / (shares.shape[1] - 1), 1e-9)
    return curvatures


def _ridge(scale: float, cells: PublicCells, count: float) -> float:
    noise = scale / float(np.sqrt(cells.num_partitions))
    return RIDGE_PER_NOISE * noise + RIDGE_PER_ROW * count
