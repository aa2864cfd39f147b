"""Recipes: how a student learns, stage by stage, as a TOML file says.

A recipe is data: what it may hold is the models below, and whatever else a file holds is refused by
its place and the nearest key that there is. The presets that come along are such files too, so that
one's own begins as a copy of one of them.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from fedistill import config_rules as rules
from fedistill.distill.recipe_stages import Pair, Part, StagePlan
from fedistill.errors import ConfigError

WHITE_BOX = "labels", "divergence", "decoupled", "features", "attention", "distances", "angles"
"""Terms that need a teacher whose logits are exact,"""

INSIDE = "features", "attention", "distances", "angles"
"""and those of them that need its layers."""

LARGEST_CUBE = 512


class RecipePlan(Part):
    """What a recipe file holds.

    Attributes:
        about: One sentence, for readers.
        stages: In their order.
        optional: White-box terms that are left out, the others scaled up, where the student or
            the teacher does not have what they compare.
        batch: Examples of a step, over all processes.
        weight_decay: Of AdamW.
        ema_decay: Of the moving average of the weights, which is what ships.
        validation: Share of the proxy rows that nothing is learned from: they decide when a stage
            ends and which temperature is taken.
        label_propagation: Whether labels are spread over proxy rows whose features lie close.
        jitter: Greatest share by which amounts in the copies of a table's rows are moved.
        sure_from: Probability from which a class of the target counts as a row's hard label; 1 for
            none, since public rows carry none.
        layers: By depth, the layers whose outputs are compared; empty for a guess.
    """

    about: str = ""
    stages: list[StagePlan] = Field(min_length=1)
    optional: tuple[Literal["features", "attention", "distances", "angles"], ...] = Field(
        (), strict=False
    )
    batch: int = Field(256, ge=2)
    weight_decay: float = Field(0.01, ge=0)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    validation: float = Field(0.0, ge=0, le=0.5)
    label_propagation: bool = False
    jitter: float = Field(0.0, ge=0, lt=1)
    sure_from: float = Field(1.0, gt=0, le=1)
    layers: dict[str, Pair] = Field(default_factory=dict)

    @property
    def white_box(self) -> tuple[str, ...]:
        """Terms of any stage that need a teacher whose logits are exact."""
        return self._used(WHITE_BOX)

    @property
    def inside(self) -> tuple[str, ...]:
        """Terms of any stage that need that teacher's layers."""
        return self._used(INSIDE)

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def _used(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            name for name in names if any(getattr(stage.losses, name) > 0 for stage in self.stages)
        )


def load_recipe(value: str) -> RecipePlan:
    """The recipe that `recipe` names.

    Args:
        value: A preset, or the full path of a TOML file.

    Raises:
        ConfigError: It cannot be read, or holds what no recipe holds; names file, place and bound.
    """
    where = f"recipe={value!r}"
    try:
        text = _text_of(value)
        return _checked(RecipePlan.model_validate(tomllib.loads(text)))
    except OSError as error:
        raise ConfigError(f"{where} cannot be read ({error.strerror}): check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} must be TOML ({error}): mend that place") from error
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(error.errors(include_url=False)[0])}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _text_of(value: str) -> str:
    if value in rules.RECIPES:
        return (files("fedistill.distill") / "presets" / f"{value}.toml").read_text("utf-8")
    return Path(value).read_text("utf-8")


def _checked(plan: RecipePlan) -> RecipePlan:
    """Refuse what is right in each place and wrong together."""
    for number, stage in enumerate(plan.stages):
        place = f"stages[{number}]"
        try:
            _ = stage.mix, stage.temperatures, stage.alphas
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        if stage.holds_out and plan.validation == 0:
            raise ConfigError(
                f"validation={plan.validation:g} must be above 0 where {place} has patience or "
                "searches its temperature: hold out for instance 0.1 of the proxy rows"
            )
        compared = [name for name in WHITE_BOX if getattr(stage.losses, name) > 0]
        if (stage.mixup or stage.cutmix) and compared:
            raise ConfigError(
                f"{place}: mixup={stage.mixup:g} and cutmix={stage.cutmix:g} must be 0 beside "
                f"{compared[0]}, whose teacher saw no mixed row: mix in a stage of its own"
            )
        if stage.losses.angles > 0 and plan.batch > LARGEST_CUBE:
            raise ConfigError(
                f"batch={plan.batch} must be at most {LARGEST_CUBE} where {place} compares angles, "
                "whose memory grows with its cube: lower batch"
            )
        if stage.mixup and stage.cutmix:
            raise ConfigError(
                f"{place}: mixup={stage.mixup:g} must be 0 with cutmix={stage.cutmix:g}: a stage "
                "mixes in one way"
            )
        if stage.losses.labels > 0 and plan.sure_from == 1:
            raise ConfigError(
                f"{place}: labels={stage.losses.labels:g} must be 0, as public rows carry no "
                "labels: leave it out, or set sure-from below 1, from where on a class of the "
                "target counts as a row's label"
            )
    return plan


def _sentence(error: ErrorDetails) -> str:
    """Place, value and bound of a validation error, then what to do."""
    place = _place(error["loc"])
    kind = error["type"]
    if kind == "unknown_key":
        return f"{place}: {error['msg']}" if place else error["msg"]
    if kind == "missing":
        return f"{place} must be given: add it"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kinds = "'ramp'" if place.endswith("alpha") else "'rising', 'falling' or 'search'"
        return f"{place} must be a number, or a table with kind={kinds}: choose one of these"
    if kind == "literal_error":
        return f"{place}={error['input']!r} must be {error['ctx']['expected']}: choose one of these"
    if kind in ("too_short", "list_type", "dict_type", "model_type"):
        return f"{place}={error['input']!r}: {error['msg']}: mend its value"
    return rules.sentence({**error, "loc": (place,)})


def _place(path: tuple[int | str, ...]) -> str:
    """Where in the file, such as stages[0].losses."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step not in ("constant", "rising", "falling", "search", "ramp"):
            text += f".{step}" if text else step
    return text
