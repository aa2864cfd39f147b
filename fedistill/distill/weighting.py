"""How much each site's answer counts in the ensemble, direction by direction.

`uniform`: every site counts the same.

`agreement`: a random-effects combination (DerSimonian and Laird 1986, "Meta-analysis in clinical
trials"). A site's answers are gain * (truth + its own deviation) + noise; noise is stated by the
mechanism, the size of the deviations is learned from how well the answers agree on the public proxy
set. A site counts in proportion to gain / (noise + gain^2 * deviation): where sites agree, those
with less noise (more rows) count more; where they differ beyond their noise, all count alike. An
outlier (`fedistill.distill.outliers`) has a further deviation of its own and counts by it.

Post-processing of releases: no private row is read, nothing is charged.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedistill.labels import Floats

PRIOR_VARIANCES = np.logspace(-3, 6, 91)
"""Grid of the truth's prior variance."""

PRIORS = PRIOR_VARIANCES[::3]
SMALLEST_VARIANCE = 1e-12
DEVIATIONS = np.concatenate([[0.0], np.logspace(-2, 1.5, 29)])
"""Grid of the variance of a site's own deviation, as a share of the truth's prior variance."""

_LEADING = 10
"""Leading directions that do not inform the deviations: unlike class shares move them most."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All sites' answers along the eigenvectors of the proxy set's curvature, and their law.

    Attributes:
        values: (num_sites, num_features, num_classes), classes sum to zero.
        gain: (num_sites, num_features).
        noise: (num_sites, num_features) variance of the answers' own noise.
        sampling: (num_sites, num_features) variance of the answers, the sites' rows being finite.
        common: (num_features,) variance that all sites share, of the truth's own scale.
    """

    values: Floats
    gain: Floats
    noise: Floats
    sampling: Floats
    common: Floats

    @property
    def variance(self) -> Floats:
        """(num_sites, num_features) of an answer around gain * truth."""
        return self.noise + self.sampling

    def take(self, directions: slice) -> "Answers":
        """The same in these directions alone."""
        return replace(
            self,
            values=self.values[:, directions],
            gain=self.gain[:, directions],
            noise=self.noise[:, directions],
            sampling=self.sampling[:, directions],
            common=self.common[directions],
        )

    def of(self, sites: npt.NDArray[np.bool_]) -> "Answers":
        """The same of these sites alone."""
        return replace(
            self,
            values=self.values[sites],
            gain=self.gain[sites],
            noise=self.noise[sites],
            sampling=self.sampling[sites],
        )


@dataclass(frozen=True, kw_only=True)
class Combined:
    """One answer made of all sites' answers, and its law.

    Attributes:
        values: (num_features, num_classes), classes sum to zero.
        gain: (num_features,).
        noise: (num_features,) variance of the answer's own noise.
        sampling: (num_features,) variance of the answer, the sites' rows being finite.
        weights: (num_sites, num_features) how much each site counts; columns sum to one.
    """

    values: Floats
    gain: Floats
    noise: Floats
    sampling: Floats
    weights: Floats


def weighted_mean(answers: Answers, weights: Floats) -> Combined:
    """The answers averaged with these weights, (num_sites, num_features)."""
    return Combined(
        values=np.einsum("sf,sfc->fc", weights, answers.values),
        gain=(weights * answers.gain).sum(axis=0),
        noise=(weights**2 * answers.noise).sum(axis=0),
        sampling=(weights**2 * answers.sampling).sum(axis=0),
        weights=weights,
    )


def uniform_weights(answers: Answers) -> Floats:
    """Equal weights, (num_sites, num_features); columns sum to one."""
    return np.full(answers.gain.shape, 1 / len(answers.gain))


def agreement_weights(answers: Answers, excess: Floats | None = None) -> Floats:
    """Random-effects weights, (num_sites, num_features); columns sum to one.

    Args:
        answers: Of all sites.
        excess: (num_sites,) further variance of outliers, which then do not inform the size of the
            others' deviations; 0 for all other sites.
    """
    further = np.zeros(len(answers.gain)) if excess is None else excess
    deviation = _variance_of_deviations(answers.of(further == 0)) + further[:, None]
    gain = np.maximum(answers.gain, SMALLEST_VARIANCE)
    spread = answers.variance + gain**2 * deviation
    weights = gain / np.maximum(spread, SMALLEST_VARIANCE)
    share: Floats = weights / weights.sum(axis=0)
    return share


def shares(weights: Floats, answers: Answers, eigenvalues: Floats) -> Floats:
    """Each site's share of the ensemble's answer on the proxy set, (num_sites,), sum one."""
    passed = (weights * answers.gain) @ eigenvalues
    share: Floats = passed / passed.sum()
    return share


def informative_directions(answers: Answers) -> slice:
    """Those that say how far sites differ beyond their class shares."""
    num_features = answers.gain.shape[1]
    # Eigenvalues ascend, so the leading directions come last.
    return slice(0, num_features - _LEADING if num_features > 2 * _LEADING else num_features)


def _variance_of_deviations(answers: Answers) -> float:
    """The variance of greatest marginal likelihood, prior variance of the truth fitted with it."""
    num_sites, _, num_classes = answers.values.shape
    if num_sites < 2:
        return 0.0
    used = answers.take(informative_directions(answers))
    values, gain = used.values, used.gain
    squares = (values**2).sum(axis=2)
    noise = np.maximum(used.variance, SMALLEST_VARIANCE)
    truth = PRIORS[:, None] + used.common
    best, found = -np.inf, 0.0
    for share in DEVIATIONS:
        deviation = share * PRIORS[:, None, None]
        spread = noise + gain**2 * deviation  # (num_priors, sites, features)
        precision = (gain**2 / spread).sum(axis=1)
        pull = np.einsum("ksf,sfc->kfc", gain / spread, values)
        log_determinant = np.log(spread).sum(axis=1) + np.log1p(truth * precision)
        explained = truth * (pull**2).sum(axis=2) / (1 + truth * precision)
        misfit = (squares / spread).sum(axis=1) - explained
        likelihood = -0.5 * ((num_classes - 1) * log_determinant + misfit).sum(axis=1)
        if likelihood.max() > best:
            best = likelihood.max()
            found = float(share * PRIORS[likelihood.argmax()])
    return found
