"""The ensemble target: the sites' answers averaged, then freed of shrinkage and noise.

Post-processing of releases (costs nothing). A mechanism states its answers' law as a
`LinearResponse`: along the eigenvectors of the proxy set's curvature, answer = gain * truth +
noise. The truth is given a normal prior of one variance in every direction, fitted by marginal
likelihood (empirical Bayes, Efron and Morris 1973), and the target is its posterior mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.features import ProxyBasis
from fedistill.labels import (
    EnsembleTarget,
    Floats,
    LabelRelease,
    LinearResponse,
    probabilities,
)

MODEL_ERROR = 3.0
"""Times the sampling variance: the sites' curvature differs from the proxy set's."""

_PRIOR_VARIANCES = np.logspace(-3, 6, 91)


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """All teachers as one: labels any public row.

    Attributes:
        basis: The proxy set's features.
        weights: (num_features, num_classes), rows sum to zero.
        target: The ensemble's labels on the proxy set.
    """

    basis: ProxyBasis
    weights: Floats
    target: EnsembleTarget

    def label(self, rows: npt.NDArray[np.float32]) -> Floats:
        """Log-odds against class 0 of raw rows, (num_rows, num_classes - 1)."""
        return _log_odds(self.basis.features(rows), self.weights)


def build_ensemble(
    releases: Sequence[LabelRelease], responses: Sequence[LinearResponse], basis: ProxyBasis
) -> Ensemble:
    """Average the releases with equal weights and denoise the average.

    Args:
        releases: One a site, all on the proxy set of `basis`.
        responses: The law of each release, in the same order.
        basis: The proxy set's features and curvature.
    """
    average = np.mean([release.log_odds for release in releases], axis=0)
    raw_weights = basis.pseudo_inverse @ _centred(average)
    gain, variance = _law_of_the_average(responses, average, basis)
    answers = basis.eigenvectors.T @ raw_weights
    prior = _prior_variance(answers, gain, variance)
    shrinkage = gain * prior / (gain**2 * prior + variance)
    posterior_variance = prior * variance / (gain**2 * prior + variance)
    weights = basis.eigenvectors @ (shrinkage[:, None] * answers)
    # Log-odds are the difference of two classes, each with the posterior's variance.
    along = basis.values @ basis.eigenvectors
    std = np.sqrt(2 * along**2 @ posterior_variance)
    target = EnsembleTarget(
        log_odds=_log_odds(basis.values, weights),
        std=np.repeat(std[:, None], average.shape[1], axis=1),
        num_sites=len(releases),
    )
    return Ensemble(basis=basis, weights=weights, target=target)


def _law_of_the_average(
    responses: Sequence[LinearResponse], average: Floats, basis: ProxyBasis
) -> tuple[Floats, Floats]:
    """Gain and noise variance of the mean answer, each (num_features,)."""
    num_sites = len(responses)
    gain = np.mean([response.gain for response in responses], axis=0)
    noise = np.sum([response.noise_variance for response in responses], axis=0) / num_sites**2
    rows = np.sum([response.sampling_variance for response in responses], axis=0) / num_sites**2
    shares = probabilities(average)
    curvature = ((shares * (1 - shares)).sum(axis=1) / average.shape[1]).mean()
    proxies = 1 / (len(average) * max(curvature, 1e-9) * basis.eigenvalues)
    return gain, noise + MODEL_ERROR * gain**2 * (rows + proxies)


def _prior_variance(answers: Floats, gain: Floats, variance: Floats) -> float:
    """The prior variance of greatest marginal likelihood; answers (num_features, num_classes)."""
    freedom = answers.shape[1] - 1
    squares = (answers**2).sum(axis=1)
    spread = gain**2 * _PRIOR_VARIANCES[:, None] + variance
    log_likelihood = -0.5 * (freedom * np.log(spread) + squares / spread).sum(axis=1)
    return float(_PRIOR_VARIANCES[log_likelihood.argmax()])


def _centred(log_odds: Floats) -> Floats:
    """Log-odds against class 0 as logits that sum to zero, (num_rows, num_classes)."""
    logits = np.concatenate([np.zeros((len(log_odds), 1)), log_odds], axis=1)
    centred: Floats = logits - logits.mean(axis=1, keepdims=True)
    return centred


def _log_odds(features: Floats, weights: Floats) -> Floats:
    log_odds: Floats = features @ (weights[:, 1:] - weights[:, :1])
    return log_odds
