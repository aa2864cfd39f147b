"""What `dp-sgd` and `dp-ebm` share: a private model's answers as weights, and their noise.

Such a model is private before it answers, so all of this is post-processing. Its noise is smooth:
neighbouring proxy rows err alike, unlike noise that is added to each answer. No closed form gives
its size for any network, so it is rehearsed: the same training with the same noise, on public
proxy rows with made-up labels.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedistill.features import ProxyBasis
from fedistill.labels import Floats, LinearResponse, probabilities
from fedistill.mechanisms.linear_answers import SIGNAL, log_odds_of

_NEIGHBOURS = 9
"""Directions of similar eigenvalue whose noise is averaged: few rehearsals are enough then."""

_LARGEST = 1e4
"""Bound on a private model's log-odds, so that whatever it answers can be projected."""


def weights_of(basis: ProxyBasis, logits: Floats) -> Floats:
    """The least-squares projection of logits on the public features.

    Args:
        basis: The proxy set's features.
        logits: (num_proxy, num_classes), on the proxy rows.

    Returns:
        (num_features, num_classes), rows sum to zero. An answer that is not finite counts as 0.
    """
    finite = np.clip(np.nan_to_num(logits, nan=0.0), -_LARGEST, _LARGEST)
    weights: Floats = basis.pseudo_inverse @ (finite - finite.mean(axis=1, keepdims=True))
    return weights


def response_of_rehearsals(
    basis: ProxyBasis, rehearsed: Sequence[Floats], num_rows: float
) -> LinearResponse:
    """The law of weights whose truth is what the same model would say without noise.

    Args:
        basis: The proxy set's features.
        rehearsed: Weights of `weights_of` that are nothing but noise; at least one.
        num_rows: Of the site, public or noised, at least 1.
    """
    along = np.stack([basis.eigenvectors.T @ weights for weights in rehearsed])
    squares = (along**2).sum(axis=2).mean(axis=0) / (along.shape[2] - 1)
    window = min(_NEIGHBOURS, len(squares))
    padded = np.pad(squares, (window // 2, (window - 1) // 2), mode="edge")
    smooth = np.convolve(padded, np.full(window, 1 / window), mode="valid")
    return LinearResponse(
        gain=np.ones_like(squares),
        noise_variance=np.maximum(smooth, 1e-12),
        sampling_variance=4 / (num_rows * basis.eigenvalues),
    )


def made_up_labels(basis: ProxyBasis, num_classes: int) -> npt.NDArray[np.int64]:
    """Labels (num_proxy,) drawn by log-odds that a teacher is expected to give.

    A random linear function of the public features; the same labels each time.
    """
    random = np.random.default_rng(0)
    weights = random.normal(size=(basis.values.shape[1], num_classes)) * math.sqrt(SIGNAL / 2)
    shares = probabilities(log_odds_of(basis.values, weights)).cumsum(axis=1)
    labels: npt.NDArray[np.int64] = (random.random((len(shares), 1)) > shares).sum(axis=1)
    return np.minimum(labels, num_classes - 1)
