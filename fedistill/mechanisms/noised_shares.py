"""Softmax regression on noised class shares: post-processing for answers that are label sums.

Noised shares may be negative or above one, so their log-odds say little. The cross-entropy is
linear in its target: fitted to the shares as they are, its gradient stays unbiased, and noise adds
to it with a known variance. So the fit's law is known too.
"""

import numpy as np
import numpy.typing as npt

from fedistill.features import ProxyBasis
from fedistill.labels import Floats, LinearResponse, probabilities

RIDGE_PER_VARIANCE = 8.0
"""Ridge a unit of the noise variance of one share."""

RIDGE_PER_ROW = 2e-3
_CURVATURE_BOUND = 0.5
_STEPS = 200

_TRACE = 1e-3
"""Rows like the proxy set that chosen rows are taken to add up to at least in any direction."""


def fit_noised_shares(features: Floats, shares: Floats, *, variance: float) -> Floats:
    """Weights (num_features, num_classes), rows summing to zero.

    Minimises the cross-entropy plus `ridge / 2` times the squared weights, by majorisation with
    Boehning's (1992) bound on the softmax's curvature: no step size, no line search, no failure.

    Args:
        features: (num_answered, num_features) of the rows that were answered.
        shares: (num_answered, num_classes) noised.
        variance: Of the noise in each share.
    """
    # Shares sum to one; a part of the noise is seen to be noise and taken out.
    excess = (shares.sum(axis=1, keepdims=True) - 1) / shares.shape[1]
    ridge = _ridge(variance, len(features))
    pull = features.T @ (shares - excess)
    bound = _CURVATURE_BOUND * features.T @ features + ridge * np.eye(features.shape[1])
    inverse = np.linalg.inv(bound)
    weights = np.zeros(pull.shape)
    for _ in range(_STEPS):
        answered = probabilities(features @ (weights[:, 1:] - weights[:, :1]))
        weights = weights + inverse @ (pull - features.T @ answered - ridge * weights)
    centred: Floats = weights - weights.mean(axis=1, keepdims=True)
    return centred


def response_of_shares(
    basis: ProxyBasis, log_odds: Floats, *, num_answered: int, variance: float, num_rows: float
) -> LinearResponse:
    """The law of weights fitted by `fit_noised_shares`, linearised at the released labels.

    With curvature kappa of the softmax, a direction of eigenvalue lambda gets the weight
    (N lambda kappa truth + noise of variance N lambda `variance`) / (N lambda kappa + ridge).

    Args:
        basis: The proxy set's features.
        log_odds: (num_proxy, num_classes - 1) released.
        num_answered: Proxy rows with noise of their own; N above.
        variance: Of the noise in each share.
        num_rows: The site's rows, noised or a public bound, for its sampling error.
    """
    curvature = float(_curvatures(log_odds).mean())
    seen = num_answered * basis.eigenvalues
    damping = curvature * seen + _ridge(variance, num_answered)
    sampling: npt.NDArray[np.float64] = 1 / (num_rows * curvature * basis.eigenvalues)
    return LinearResponse(
        gain=curvature * seen / damping,
        noise_variance=variance * seen / damping**2,
        sampling_variance=sampling,
    )


def response_of_chosen(
    basis: ProxyBasis,
    log_odds: Floats,
    *,
    rows: npt.NDArray[np.int64],
    variance: float,
    num_rows: float,
) -> LinearResponse:
    """As `response_of_shares`, where the answered rows were chosen and so are unlike the others.

    The fit solves (H + ridge) w = H truth + noise, with H the chosen rows' second moment, each row
    times the softmax's curvature there, and noise of covariance `variance` M^T M, M these rows.
    Rows that were not chosen tell nothing: it may be that none was.

    Args:
        basis: The proxy set's features.
        log_odds: (num_proxy, num_classes - 1) released.
        rows: (num_answered,) indices of the proxy rows that were answered.
        variance: Of the noise in each share.
        num_rows: The site's rows, noised or a public bound, for its sampling error.
    """
    along = basis.values[rows] @ basis.eigenvectors
    curvatures = _curvatures(log_odds)
    mean, trace = float(curvatures.mean()), _TRACE * basis.eigenvalues
    information = along.T @ (along * curvatures[rows, None]) + np.diag(mean * trace)
    ridge = _ridge(variance, len(rows))
    inverse = np.linalg.inv(information + ridge * np.eye(len(information)))
    moment = along.T @ along + np.diag(trace)
    return LinearResponse(
        gain=np.einsum("ij,ji->i", inverse, information),
        noise_variance=variance * np.einsum("ij,jk,ki->i", inverse, moment, inverse, optimize=True),
        sampling_variance=1 / (num_rows * mean * basis.eigenvalues),
    )


def _curvatures(log_odds: Floats) -> Floats:
    """Mean eigenvalue of the softmax's curvature for each row of log-odds against class 0."""
    shares = probabilities(log_odds)
    traces = (shares * (1 - shares)).sum(axis=1)
    curvatures: Floats = np.maximum(traces / (shares.shape[1] - 1), 1e-9)
    return curvatures


def _ridge(variance: float, num_answered: int) -> float:
    return RIDGE_PER_VARIANCE * variance + RIDGE_PER_ROW * num_answered
