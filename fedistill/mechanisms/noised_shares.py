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
    shares = probabilities(log_odds)
    curvature = float(((shares * (1 - shares)).sum(axis=1) / (shares.shape[1] - 1)).mean())
    seen = num_answered * basis.eigenvalues
    damping = curvature * seen + _ridge(variance, num_answered)
    sampling: npt.NDArray[np.float64] = 1 / (num_rows * max(curvature, 1e-9) * basis.eigenvalues)
    return LinearResponse(
        gain=curvature * seen / damping,
        noise_variance=variance * seen / damping**2,
        sampling_variance=sampling,
    )


def _ridge(variance: float, num_answered: int) -> float:
    return RIDGE_PER_VARIANCE * variance + RIDGE_PER_ROW * num_answered
