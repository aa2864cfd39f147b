"""Several losses as one: named terms and their weights.

Features and attention are terms only where the teacher is white-box: a public model on the server,
or the uncompressed student.
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
        cross_entropy: With hard public labels, or with the noised target.
        divergence: From the teacher's softened probabilities.
        features: `FeatureMatching`.
        attention: Of images or of a transformer's scores.
    """

    cross_entropy: float = 0.0
    divergence: float = 0.0
    features: float = 0.0
    attention: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name}={weight} must be at least 0 and finite: raise it")
        if not any(asdict(self).values()):
            raise ConfigError("a mix of losses must have a weight above 0: give one term a weight")


FOUR_TERMS = LossMix(cross_entropy=0.5, divergence=0.3, features=0.15, attention=0.05)
"""Labels and soft labels first, features and attention as guidance."""


def mixed_loss(
    mix: LossMix,
    *,
    cross_entropy: Tensor | None = None,
    divergence: Tensor | None = None,
    features: Tensor | None = None,
    attention: Tensor | None = None,
) -> Tensor:
    """Sum of weight times term, a scalar.

    Args:
        mix: The weights.
        cross_entropy: A scalar; None where it is not computed, as the three others.
        divergence: Of a temperature, with its square.
        features: At several depths, averaged.
        attention: The same.

    Raises:
        ConfigError: A term of positive weight is None. A mix without it is made by `without`.
    """
    terms = {
        "cross_entropy": cross_entropy,
        "divergence": divergence,
        "features": features,
        "attention": attention,
    }
    parts: list[Tensor] = []
    for name, weight in asdict(mix).items():
        term = terms[name]
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
