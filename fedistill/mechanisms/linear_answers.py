"""What mechanisms share whose answers are log-odds of proxy rows rather than weights.

All of it is post-processing of integers that were noised before: labels become weights on the
public features by ridge regression, so that one encoding and one denoising serve every mechanism.
The ridge is a function of public values, so the server knows by how much it shrinks.
"""

import numpy as np
import numpy.typing as npt

from fedistill.features import ProxyBasis
from fedistill.labels import Floats, LinearResponse

SIGNAL = 4.0
"""Mean square of the log-odds that a teacher is expected to give; a public guess."""


def fit_weights(
    basis: ProxyBasis,
    log_odds: Floats,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    variance: float,
    signal: float = SIGNAL,
) -> Floats:
    """Weights (num_features, num_classes), rows summing to zero, that give these log-odds.

    Args:
        basis: The proxy set's features.
        log_odds: (num_answered, num_classes - 1) against class 0, noised.
        rows: (num_answered,) indices of the proxy rows that were answered; None means all.
        variance: Of the noise in each log-odd, independent; public.
        signal: Expected mean square of the log-odds without noise; public.
    """
    features = basis.values if rows is None else basis.values[rows]
    logits = np.concatenate([np.zeros((len(log_odds), 1)), log_odds], axis=1)
    logits -= logits.mean(axis=1, keepdims=True)
    ridge = _per_class(variance, logits.shape[1]) / _prior(basis, signal)
    gram = features.T @ features + max(ridge, 1e-9) * np.eye(features.shape[1])
    weights: Floats = np.linalg.solve(gram, features.T @ logits)
    return weights


def response_of_labels(
    basis: ProxyBasis,
    *,
    num_answered: int,
    variance: float,
    rows_at_least: float,
    num_classes: int = 2,
    signal: float = SIGNAL,
) -> LinearResponse:
    """The law of weights that `fit_weights` gave.

    Args:
        basis: The proxy set's features.
        num_answered: Proxy rows that carry independent noise.
        variance: As there.
        rows_at_least: Public lower bound on the site's rows, for its sampling error.
        num_classes: Classes of the task.
        signal: As there.
    """
    noise = _per_class(variance, num_classes) / (num_answered * basis.eigenvalues)
    prior = _prior(basis, signal)
    gain = prior / (prior + noise)
    return LinearResponse(
        gain=gain,
        noise_variance=gain**2 * noise,
        sampling_variance=4 / (max(rows_at_least, 1.0) * basis.eigenvalues),
    )


def log_odds_of(features: Floats, weights: Floats) -> Floats:
    """Log-odds against class 0, (num_rows, num_classes - 1), of rows with these features."""
    log_odds: Floats = features @ (weights[:, 1:] - weights[:, :1])
    return log_odds


def _per_class(variance: float, num_classes: int) -> float:
    """Noise of a logit, logits summing to zero, whose log-odds against class 0 carry `variance`."""
    return variance * (1 - 1 / num_classes)


def _prior(basis: ProxyBasis, signal: float) -> float:
    """Variance of a weight, the same in all directions, that gives log-odds of this mean square."""
    return signal / float(basis.eigenvalues.sum())
