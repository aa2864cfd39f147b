"""What `dp-probe` and `corrections` do with a noised sum: a preconditioned step, and its law.

Post-processing. The preconditioner is the proxy set's curvature under Boehning's (1992) bound of
1/2 on that of softmax regression, times the noised count of units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedistill.features import ProxyBasis
from fedistill.labels import Floats, LinearResponse, probabilities

STEP_SIZE = 1.0
RIDGE_PER_NOISE = 2.83
RIDGE_PER_ROW = 2e-3
CURVATURE_BOUND = 0.5


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is public of a step.

    Attributes:
        count: Noised units in the sum, at least 1.
        std: Of the noise in each entry of the sum.
        clip: L2 bound of a unit's part of the sum.
    """

    count: float
    std: float
    clip: float


def stepped(basis: ProxyBasis, weights: Floats, noisy_sum: Floats, step: Step) -> Floats:
    """Weights after a step.

    Args:
        basis: The proxy set's features.
        weights: (num_features, num_classes) at which the sum was taken.
        noisy_sum: The same shape, of features times residuals.
        step: See above.
    """
    gradient = noisy_sum - noisy_sum.mean(axis=1, keepdims=True)
    along = basis.eigenvectors.T @ gradient
    moved = basis.eigenvectors @ (along / _damping(basis, step)[:, None])
    after: Floats = weights + STEP_SIZE * moved
    return after


def response_of_steps(basis: ProxyBasis, log_odds: Floats, steps: Sequence[Step]) -> LinearResponse:
    """Gain and noise of weights after these steps from zero, linearised at the released labels.

    One step takes w to w + a (f - w) + noise with a = STEP_SIZE n kappa lambda / (n lambda / 2 +
    ridge). kappa is the curvature of the softmax under the release's own labels, lessened by the
    share that clipping takes away.

    Args:
        basis: The proxy set's features.
        log_odds: (num_proxy, num_classes - 1) released.
        steps: In their order, at least one.
    """
    shares = probabilities(log_odds)
    curvature = float(((shares * (1 - shares)).sum(axis=1) / (shares.shape[1] - 1)).mean())
    gain, noise_variance = np.zeros((2, len(basis.eigenvalues)))
    for step in steps:
        kappa = curvature * _unclipped_share(shares, basis, step.clip)
        damping = _damping(basis, step)
        rate = STEP_SIZE * step.count * kappa * basis.eigenvalues / damping
        gain += rate * (1 - gain)
        noise_variance *= (1 - rate) ** 2
        noise_variance += (STEP_SIZE * step.std / damping) ** 2
    return LinearResponse(
        gain=gain,
        noise_variance=noise_variance,
        sampling_variance=1 / (steps[-1].count * curvature * basis.eigenvalues),
    )


def _damping(basis: ProxyBasis, step: Step) -> Floats:
    """Diagonal of the preconditioner's inverse along the eigenvectors of the curvature."""
    ridge = RIDGE_PER_NOISE * step.std + RIDGE_PER_ROW * step.count
    damping: Floats = CURVATURE_BOUND * step.count * basis.eigenvalues + ridge
    return damping


def _unclipped_share(shares: Floats, basis: ProxyBasis, clip: float) -> float:
    """Expected factor that clipping leaves of a record's gradient, under the given labels."""
    norms = np.linalg.norm(basis.values, axis=1)
    left = np.zeros(len(shares))
    for label, share in enumerate(shares.T):
        residuals = np.eye(shares.shape[1])[label] - shares
        lengths = np.maximum(norms * np.linalg.norm(residuals, axis=1), 1e-12)
        left += share * np.minimum(1.0, clip / lengths)
    return float(left.mean())
