"""What the keys about recipes ask of each other, and of the files that they name."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fedistill.errors import ConfigError


class RecipeKeys(Protocol):
    """The keys that a recipe replaces, and those that are of recipes alone."""

    @property
    def recipe(self) -> str: ...  # noqa: D102
    @property
    def public_teacher(self) -> str: ...  # noqa: D102
    @property
    def track(self) -> str: ...  # noqa: D102
    @property
    def train_processes(self) -> int: ...  # noqa: D102
    @property
    def label_propagation(self) -> bool: ...  # noqa: D102
    @property
    def student_epochs(self) -> int: ...  # noqa: D102


def check_recipe_keys(config: RecipeKeys) -> None:
    """Refuse keys that the recipe would pass over in silence.

    Raises:
        ConfigError: Names the key that has no effect.
    """
    if config.recipe == "auto":
        if config.public_teacher:
            raise ConfigError(
                f"public-teacher={config.public_teacher!r} is for recipes that compare with it: "
                "set recipe to 'four-term' or to a file of your own"
            )
        if config.track != "none":
            raise ConfigError(
                f"track={config.track!r} logs the stages of a recipe, and recipe='auto' has none: "
                "name a recipe, or set track='none'"
            )
        if config.train_processes > 1:
            raise ConfigError(
                f"train-processes={config.train_processes} is for recipes, and recipe='auto' "
                "trains in one: name a recipe, or set train-processes=1"
            )
        return
    if config.label_propagation:
        raise ConfigError(
            f"label-propagation=true is of recipe='auto', and recipe={config.recipe!r} says itself "
            "whether labels are spread: write label-propagation = true into a recipe file"
        )
    if config.student_epochs:
        raise ConfigError(
            f"student-epochs={config.student_epochs} is of recipe='auto', and recipe="
            f"{config.recipe!r} has epochs in its stages: leave student-epochs at 0"
        )


def files_sha256(keys: Mapping[str, str]) -> str:
    """Hex digests of the files among these keys' values, one after the other; "" for none.

    Raises:
        ConfigError: A file cannot be read; names its key.
    """
    digests = ""
    for key, value in keys.items():
        if not value.startswith("/"):
            continue
        try:
            digests += hashlib.sha256(Path(value).read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(
                f"{key}={value!r} cannot be read ({error.strerror}): check the path"
            ) from error
    return digests
