"""The ensemble target: the sites' answers combined, then freed of shrinkage and noise.

Post-processing of releases (costs nothing). A mechanism states its answers' law as a
`LinearResponse`: along the eigenvectors of the proxy set's curvature, answer = gain * truth +
noise. The truth is given a normal prior whose variance is a power of the eigenvalue, from the same
in every direction to less where proxy rows vary little. Scale and power are fitted by marginal
likelihood (empirical Bayes, Efron and Morris 1973), and the target is its posterior mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.distill.outliers import Outliers, find_outliers, no_outliers
from fedistill.distill.trimming import largest_trim, trimmed_mean
from fedistill.distill.weighting import (
    PRIOR_VARIANCES,
    Answers,
    Combined,
    agreement_weights,
    shares,
    uniform_weights,
    weighted_mean,
)
from fedistill.features import ProxyBasis
from fedistill.labels import (
    EnsembleTarget,
    Floats,
    LabelRelease,
    LinearResponse,
    probabilities,
)

MODEL_ERROR = 2.0
"""Times the sampling variance: the sites' curvature differs from the proxy set's."""

POWERS = 0.0, 0.25, 0.5
"""Of the eigenvalue, to which the prior variance may be proportional."""

_MODEL_ERRORS = np.geomspace(1 / 8, 8, 7)
"""Times `MODEL_ERROR`: left open while the power is chosen, or it would explain misfits."""

_SMALLEST_VARIANCE = 1e-12

WEIGHTINGS = "uniform", "agreement", "median", "trimmed"
"""How the answers are combined, by the name that `ensemble-weights` takes."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """All teachers as one: labels any public row.

    Attributes:
        basis: The proxy set's features.
        weights: (num_features, num_classes), rows sum to zero.
        target: The ensemble's labels on the proxy set.
        site_shares: Share of each site in the answer, in the order of the releases; sum one.
        outliers: How far each site is from the others; equal weights compare nobody.
    """

    basis: ProxyBasis
    weights: Floats
    target: EnsembleTarget
    site_shares: tuple[float, ...]
    outliers: Outliers

    def label(self, rows: npt.NDArray[np.float32]) -> Floats:
        """Log-odds against class 0 of raw rows, (num_rows, num_classes - 1)."""
        return _log_odds(self.basis.features(rows), self.weights)


def build_ensemble(
    releases: Sequence[LabelRelease],
    responses: Sequence[LinearResponse],
    basis: ProxyBasis,
    *,
    weights: str = "uniform",
    trim: int = 1,
) -> Ensemble:
    """Combine the releases and denoise what comes of it.

    Args:
        releases: One a site, all on the proxy set of `basis`.
        responses: The law of each release, in the same order.
        basis: The proxy set's features and curvature.
        weights: One of `WEIGHTINGS`.
        trim: Sites that `trimmed` cuts at each end.

    Raises:
        ValueError: Too few sites to trim so many.
    """
    answers = answers_of(releases, responses, basis)
    outliers = no_outliers(len(releases)) if weights == "uniform" else find_outliers(answers)
    combined = _combine(answers, outliers, weights, trim)
    average, gain, noise = combined.values, combined.gain, combined.noise
    sampling = combined.sampling + gain**2 * answers.common
    prior = _prior_variances(average, gain, noise, sampling, basis.eigenvalues)
    variance = noise + sampling
    shrinkage = gain * prior / (gain**2 * prior + variance)
    posterior_variance = prior * variance / (gain**2 * prior + variance)
    fitted = basis.eigenvectors @ (shrinkage[:, None] * average)
    # Log-odds are the difference of two classes, each with the posterior's variance.
    along = basis.values @ basis.eigenvectors
    std = np.sqrt(2 * along**2 @ posterior_variance)
    target = EnsembleTarget(
        log_odds=_log_odds(basis.values, fitted),
        std=np.repeat(std[:, None], fitted.shape[1] - 1, axis=1),
        num_sites=len(releases),
    )
    return Ensemble(
        basis=basis,
        weights=fitted,
        target=target,
        site_shares=tuple(shares(combined.weights, answers, basis.eigenvalues)),
        outliers=outliers,
    )


def _combine(answers: Answers, outliers: Outliers, weights: str, trim: int) -> Combined:
    """All answers as one, in the way that `ensemble-weights` names."""
    if weights == "uniform":
        return weighted_mean(answers, uniform_weights(answers))
    if weights == "agreement":
        return weighted_mean(answers, agreement_weights(answers, outliers.excess))
    if weights == "median":
        return trimmed_mean(answers, largest_trim(len(answers.values)))
    if weights == "trimmed":
        return trimmed_mean(answers, trim)
    raise ValueError(f"weights={weights!r} must be one of {', '.join(WEIGHTINGS)}: choose one")


def answers_of(
    releases: Sequence[LabelRelease], responses: Sequence[LinearResponse], basis: ProxyBasis
) -> Answers:
    """The releases along the eigenvectors, with what is known of their noise."""
    to_weights = basis.eigenvectors.T @ basis.pseudo_inverse
    gain = np.stack([response.gain for response in responses])
    noise = np.stack([response.noise_variance for response in responses])
    rows = np.stack([response.sampling_variance for response in responses])
    # The median, since the curvature enters the law of the target and one site might send anything.
    middle = np.median([release.log_odds for release in releases], axis=0)
    likely = probabilities(middle)
    curvature = ((likely * (1 - likely)).sum(axis=1) / middle.shape[1]).mean()
    proxies = 1 / (len(middle) * max(curvature, 1e-9) * basis.eigenvalues)
    return Answers(
        values=np.stack([to_weights @ _centred(release.log_odds) for release in releases]),
        gain=gain,
        noise=noise,
        sampling=MODEL_ERROR * gain**2 * rows,
        common=MODEL_ERROR * proxies,
    )


def _prior_variances(
    answers: Floats, gain: Floats, noise: Floats, sampling: Floats, eigenvalues: Floats
) -> Floats:
    """Prior variance in each direction, (num_features,), by greatest marginal likelihood.

    First the power, over all scales and model errors; then the scale, at the stated model error.
    """

    def likelihoods(power: float, model_error: float) -> Floats:
        prior = PRIOR_VARIANCES[:, None] * (eigenvalues / eigenvalues.max()) ** power
        spread = np.maximum(gain**2 * prior + noise + model_error * sampling, _SMALLEST_VARIANCE)
        logs: Floats = -0.5 * (freedom * np.log(spread) + squares / spread).sum(axis=1)
        return logs

    freedom, squares = answers.shape[1] - 1, (answers**2).sum(axis=1)
    best = [max(likelihoods(power, error).max() for error in _MODEL_ERRORS) for power in POWERS]
    power = POWERS[int(np.argmax(best))]
    scale = PRIOR_VARIANCES[likelihoods(power, 1.0).argmax()]
    prior: Floats = scale * (eigenvalues / eigenvalues.max()) ** power
    return prior


def _centred(log_odds: Floats) -> Floats:
    """Log-odds against class 0 as logits that sum to zero, (num_rows, num_classes)."""
    logits = np.concatenate([np.zeros((len(log_odds), 1)), log_odds], axis=1)
    centred: Floats = logits - logits.mean(axis=1, keepdims=True)
    return centred


def _log_odds(features: Floats, weights: Floats) -> Floats:
    log_odds: Floats = features @ (weights[:, 1:] - weights[:, :1])
    return log_odds
