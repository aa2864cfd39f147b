"""What a stage of a recipe holds: losses, temperature, curriculum, weights, mixing, an end."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from fedistill.data.wording import suggestion
from fedistill.distill.loss_mix import LossMix
from fedistill.distill.schedules import (
    Constant,
    Rising,
    Schedule,
    alpha_ramp,
    falling_by_stage,
)


class Part(BaseModel):
    """What all parts share: strict types, kebab-case keys, no other key, no change afterwards."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        known = [str(field.alias) for field in cls.model_fields.values()]
        for key in values if isinstance(values, dict) else ():
            if key not in known:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key {key}: {advice}",
                    {"key": repr(key), "advice": suggestion(key, known)},
                )
        return values


class Losses(Part):
    """Weights of the terms; `LossMix` says what each is."""

    log_odds: float = Field(0.0, ge=0)
    cross_entropy: float = Field(0.0, ge=0)
    consistency: float = Field(0.0, ge=0)
    labels: float = Field(0.0, ge=0)
    divergence: float = Field(0.0, ge=0)
    decoupled: float = Field(0.0, ge=0)
    features: float = Field(0.0, ge=0)
    attention: float = Field(0.0, ge=0)
    distances: float = Field(0.0, ge=0)
    angles: float = Field(0.0, ge=0)


class RisingTemperature(Part):
    """`first` for `warm-up` epochs, then `by` more each epoch until `last`."""

    kind: Literal["rising"]
    first: float = Field(5.0, gt=0)
    last: float = Field(8.0, gt=0)
    by: float = Field(0.1, gt=0)
    warm_up: int = Field(0, ge=0)


class FallingTemperature(Part):
    """`first`, and `by` less after each `every` epochs, never below `least`."""

    kind: Literal["falling"]
    first: float = Field(4.0, gt=0)
    by: float = Field(1.0, ge=0)
    every: int = Field(1, ge=1)
    least: float = Field(1.0, gt=0)


class SearchedTemperature(Part):
    """The candidate that agrees best on public rows held out, after `epochs` epochs of each."""

    kind: Literal["search"]
    candidates: list[Annotated[float, Field(gt=0)]] = Field([1.0, 2.0, 4.0, 8.0], min_length=1)
    epochs: int = Field(2, ge=1)


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else "constant"


Temperature = Annotated[
    Annotated[float, Field(gt=0), Tag("constant")]
    | Annotated[RisingTemperature, Tag("rising")]
    | Annotated[FallingTemperature, Tag("falling")]
    | Annotated[SearchedTemperature, Tag("search")],
    Discriminator(_kind),
]


class AlphaRamp(Part):
    """Share of the soft part of `labels`: 0, from `hard-until` 0.3, from `mixed-until` 0.7."""

    kind: Literal["ramp"]
    hard_until: int = Field(ge=1)
    mixed_until: int = Field(ge=2)


Alpha = Annotated[
    Annotated[float, Field(ge=0, le=1), Tag("constant")] | Annotated[AlphaRamp, Tag("ramp")],
    Discriminator(_kind),
]


class Curriculum(Part):
    """Easy examples first; `Pace` says how their share grows."""

    by: Literal["entropy", "noise"] = "entropy"
    first_share: float = Field(0.3, gt=0, le=1)
    full_at: float = Field(0.5, gt=0, le=1)


class StagePlan(Part):
    """A stretch of training.

    Attributes:
        name: For logs.
        epochs: Passes over the proxy rows and their copies.
        learning_rate: Peak rate of AdamW, whose moments begin anew with each stage.
        schedule: Of the learning rate: `one-cycle`, `cosine` after `warm_up`, or `constant`.
        warm_up: Share of the stage in which the rate of `cosine` rises.
        losses: Weights of the terms.
        temperature: Of the terms that compare with a white-box teacher, by epoch.
        alpha: Share of the soft part in `labels`, by epoch.
        smoothing: Of the target of `cross-entropy`.
        curriculum: None for all examples at once.
        confidence: Whether sure examples weigh more.
        rare_classes: `beta` of `rare_class_weights`; 0 for none.
        mixup: Its alpha; 0 for none.
        cutmix: The same, of images.
        clip_gradient: Greatest L2 norm of a step's gradient; 0 for any.
        patience: Epochs without better agreement on held-out public rows that end the stage, once
            its learning rate has risen; its best weights are then kept. 0 for never.
    """

    name: str = Field(min_length=1, max_length=64)
    epochs: int = Field(ge=1, le=100_000)
    learning_rate: float = Field(3e-3, gt=0, le=10)
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warm_up: float = Field(0.05, ge=0, lt=1)
    losses: Losses
    temperature: Temperature = 1.0
    alpha: Alpha = 1.0
    smoothing: float = Field(0.0, ge=0, lt=1)
    curriculum: Curriculum | None = None
    confidence: bool = False
    rare_classes: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0, le=100)
    cutmix: float = Field(0.0, ge=0, le=100)
    clip_gradient: float = Field(0.0, ge=0)
    patience: int = Field(0, ge=0)

    @cached_property
    def mix(self) -> LossMix:
        """The weights.

        Raises:
            ConfigError: All are zero.
        """
        return LossMix(**self.losses.model_dump())

    @cached_property
    def temperatures(self) -> Schedule:
        """By epoch of the stage; that of a search begins with its first candidate.

        Raises:
            ConfigError: Its numbers do not go together.
        """
        match self.temperature:
            case RisingTemperature(first=first, last=last, by=by, warm_up=warm_up):
                return Rising(first=first, last=last, by=by, warm_up=warm_up)
            case FallingTemperature(first=first, by=by, every=every, least=least):
                stretches = -(-self.epochs // every)
                return falling_by_stage(
                    stages=stretches, length=every, first=first, by=by, least=least
                )
            case SearchedTemperature(candidates=candidates):
                return Constant(candidates[0])
            case number:
                return Constant(number)

    @cached_property
    def alphas(self) -> Schedule:
        """By epoch of the stage.

        Raises:
            ConfigError: Its numbers do not go together.
        """
        if isinstance(self.alpha, AlphaRamp):
            return alpha_ramp(hard_until=self.alpha.hard_until, mixed_until=self.alpha.mixed_until)
        return Constant(self.alpha)

    @property
    def holds_out(self) -> bool:
        """Whether it needs public rows that nothing is learned from."""
        return self.patience > 0 or isinstance(self.temperature, SearchedTemperature)


class Pair(Part):
    """Two layers whose outputs are compared, by PyTorch's names."""

    student: str
    teacher: str
