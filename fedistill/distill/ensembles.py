"""Ways to combine the sites' answers row by row, for comparison with `build_ensemble`.

The sites' answers are averaged in whatever space they are in: probabilities, log-odds or logits.
`std` is the deviation of each answer's own noise, which must be public and independent from site to
site. `build_ensemble` does more: it also undoes shrinkage and pools what the rows have in common.

Post-processing of releases: no private row is read, nothing is charged. Where secure aggregation
gives the server sums alone, only `equally_weighted` and `logit_product` can be had, from sums.
"""

from dataclasses import dataclass

import numpy as np

from fedistill.errors import ConfigError
from fedistill.labels import Floats

_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Combined:
    """All sites' answers as one.

    Attributes:
        values: (num_proxy, num_classes).
        std: (num_proxy, num_classes) of `values`; None where it is not defined.
    """

    values: Floats
    std: Floats | None


def equally_weighted(answers: Floats, std: Floats) -> Combined:
    """Every site counts the same.

    Args:
        answers: (num_sites, num_proxy, num_classes).
        std: The same shape.
    """
    return Combined(answers.mean(axis=0), np.sqrt((std**2).sum(axis=0)) / len(answers))


def agreement_weighted(answers: Floats, std: Floats) -> Combined:
    """Sites count by their noise as far as they agree, and alike where they differ beyond it.

    Weights proportional to 1 / (std^2 + deviation) in each entry. The deviation between sites is
    one variance for all entries, by the method of moments: the excess of Cochran's Q over its
    expectation. `std` of the result includes it. DerSimonian and Laird 1986, "Meta-analysis in
    clinical trials", section 3, pooled over entries.

    Args:
        answers: (num_sites, num_proxy, num_classes).
        std: The same shape.
    """
    variance = np.maximum(std**2, _SMALLEST_VARIANCE)
    return _by_precision(answers, 1 / (variance + deviation_between_sites(answers, std)))


def uncertainty_weighted(answers: Floats, std: Floats) -> Combined:
    """Each row is averaged with weights proportional to 1 / (mean over classes of std^2).

    The average of least variance where a site's noise on a row is the same in every class, and all
    sites estimate the same number (Cochran 1937, "Problems Arising in the Analysis of a Series of
    Similar Experiments"). Rows that a site hardly knows are left to the others.

    Args:
        answers: (num_sites, num_proxy, num_classes).
        std: The same shape.
    """
    variance = np.maximum((std**2).mean(axis=2, keepdims=True), _SMALLEST_VARIANCE)
    weights = 1 / variance / (1 / variance).sum(axis=0)
    return Combined((weights * answers).sum(axis=0), np.sqrt((weights**2 * std**2).sum(axis=0)))


def logit_product(logits: Floats, *, power: float | None = None) -> Combined:
    """Product of the sites' distributions, normalised: softmax(power * sum of their logits).

    With power 1 / num_sites, the default, it is the geometric mean (logarithmic opinion pool,
    Genest and Zidek 1986, "Combining Probability Distributions", section 3); with power 1 the
    product of experts (Hinton 2002, "Training Products of Experts", section 1), as sure as all
    sites together where each saw other rows. A site that is sure overrules the others. Softmax is
    not linear: noise biases the result, and its std is not defined.

    Args:
        logits: (num_sites, num_proxy, num_classes); a class's common offset does not matter.
        power: Above 0.

    Returns:
        Class probabilities, without std.

    Raises:
        ConfigError: `power` is out of bounds.
    """
    if power is not None and not 0 < power < np.inf:
        raise ConfigError(f"power={power} must be above 0: leave it out for the geometric mean")
    total = logits.sum(axis=0) * (1 / len(logits) if power is None else power)
    exponentials = np.exp(total - total.max(axis=1, keepdims=True))
    return Combined(exponentials / exponentials.sum(axis=1, keepdims=True), None)


def deviation_between_sites(answers: Floats, std: Floats) -> float:
    """Variance between sites beyond their noise, of all entries together; 0 for one site.

    (sum of (Q - (num_sites - 1))) / (sum of (S1 - S2 / S1)) over entries, at least 0, with Q the
    weighted squares around the weighted mean, S1 and S2 the sums of weights 1 / std^2 and of their
    squares.

    Args:
        answers: (num_sites, num_proxy, num_classes).
        std: The same shape.
    """
    if len(answers) < 2:
        return 0.0
    weights = 1 / np.maximum(std**2, _SMALLEST_VARIANCE)
    total = weights.sum(axis=0)
    centre = (weights * answers).sum(axis=0) / total
    excess = (weights * (answers - centre) ** 2).sum(axis=0) - (len(answers) - 1)
    room = total - (weights**2).sum(axis=0) / total
    return max(0.0, float(excess.sum() / room.sum()))


def _by_precision(answers: Floats, precision: Floats) -> Combined:
    total = precision.sum(axis=0)
    return Combined((precision * answers).sum(axis=0) / total, 1 / np.sqrt(total))
