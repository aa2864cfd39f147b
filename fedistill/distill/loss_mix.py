"""Several losses as one: named terms and their weights.

All terms but the first three compare with a white-box teacher: a public model on the server, or the
uncompressed student.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fedistill.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LossMix:
    """Weights of the terms, non-negative, not all zero.

    Attributes:
        log_odds: `log_odds_error` with the noised target.
        cross_entropy: With hard public labels, or with the noised target.
        consistency: `consistency_error` with the student's own moving average.
        labels: `hard_and_soft`.
        divergence: From the teacher's softened probabilities.
        decoupled: `decoupled_divergence`.
        features: `FeatureMatching`.
        attention: Of images or of a transformer's scores.
        distances: `distance_error` of deep features.
        angles: `angle_error` of deep features.
    """

    log_odds: float = 0.0
    cross_entropy: float = 0.0
    consistency: float = 0.0
    labels: float = 0.0
    divergence: float = 0.0
    decoupled: float = 0.0
    features: float = 0.0
    attention: float = 0.0
    distances: float = 0.0
    angles: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name}={weight} must be at least 0 and finite: raise it")
        if not any(asdict(self).values()):
            raise ConfigError("a mix of losses must have a weight above 0: give one term a weight")


FOUR_TERMS = LossMix(cross_entropy=0.5, divergence=0.3, features=0.15, attention=0.05)
"""Labels and soft labels first, features and attention as guidance."""


def mixed_loss(mix: LossMix, **terms: Tensor | None) -> Tensor:
    """Sum of weight times term, a scalar.

    Args:
        mix: The weights.
        **terms: Scalars by the names of the weights; None, or absent, where one is not computed. A
            divergence of a temperature comes with its square, features are averaged over depths.

    Raises:
        ConfigError: A term of positive weight is None. A mix without it is made by `without`.
        TypeError: A term that no mix has.
    """
    if unknown := terms.keys() - asdict(mix).keys():
        raise TypeError(f"{sorted(unknown)[0]!r} is no term: use some of {', '.join(asdict(mix))}")
    parts: list[Tensor] = []
    for name, weight in asdict(mix).items():
        term = terms.get(name)
        if weight == 0:
            continue
        if term is None:
            raise ConfigError(
                f"the term {name!r} of weight {weight} is missing: give it, or use "
                f"without(mix, {name!r})"
            )
        parts.append(weight * term)
    return torch.stack(parts).sum()


def without(mix: LossMix, *names: str) -> LossMix:
    """The mix without some terms, the others scaled up so that the sum of weights stays.

    Raises:
        ConfigError: A name is no term, or nothing is left.
    """
    weights = asdict(mix)
    if unknown := [name for name in names if name not in weights]:
        raise ConfigError(f"{unknown[0]!r} is no term: use some of {', '.join(weights)}")
    left = {name: weight for name, weight in weights.items() if name not in names}
    if not any(left.values()):
        raise ConfigError(f"no term is left without {', '.join(names)}: keep one")
    scale = sum(weights.values()) / sum(left.values())
    return LossMix(**{name: weight * scale for name, weight in left.items()})
