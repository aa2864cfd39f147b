"""A Flower app directory and the `-c` overrides of its run config, checked before a run starts."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.common.config import validate_config

from fedistill.config import RunConfig
from fedistill.config_rules import Scalar
from fedistill.errors import BadInput, ConfigError

# `key=value`, where a value with spaces stands in quotes: Flower's own syntax.
OVERRIDE = re.compile(r"([^\s=]+)=('[^']*'|\"[^\"]*\"|\S+)")


@dataclass(frozen=True, kw_only=True)
class Application:
    """An app directory, what the command line changes in its run config, and the valid result."""

    directory: Path
    overrides: dict[str, Scalar]
    config: RunConfig


def load_application(directory: Path, overrides: Sequence[str]) -> Application:
    """Read an app directory and merge `overrides` into its run config.

    Args:
        directory: Holds a `pyproject.toml` with a table `[tool.flwr.app.config]`.
        overrides: Strings of `key=value` pairs parted by spaces, or one path to a TOML file.

    Raises:
        BadInput: The directory is not such an app.
        ConfigError: A key is unknown or its value is out of bounds.
    """
    defaults = _read_run_config(directory)
    changes = _parse(overrides)
    config = RunConfig.from_flat(defaults | changes)
    for key in changes:
        if key not in defaults:  # Flower would answer "Invalid run configuration"
            raise ConfigError(
                f"key {key!r} is missing from [tool.flwr.app.config] of "
                f"{directory / 'pyproject.toml'}: add it there"
            )
    return Application(directory=directory.resolve(), overrides=changes, config=config)


def _read_run_config(directory: Path) -> dict[str, Scalar]:
    path = directory / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{str(path)!r} does not exist: name a Flower app directory, which has one"
        ) from None
    except OSError as error:
        raise BadInput(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{str(path)!r} is not a TOML file: {error}") from error
    table: object = document
    for name in ("tool", "flwr", "app", "config"):
        table = table.get(name) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise BadInput(
            f"{str(path)!r} has no table [tool.flwr.app.config]: name a Flower app directory"
        )
    _check_as_flower_does(document, path)
    return table


def _check_as_flower_does(document: dict[str, Any], path: Path) -> None:
    """Find the faults that `flwr run` would find, before it starts anything."""
    try:
        valid, faults, _ = validate_config(document, check_module=True, project_dir=path.parent)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        valid, faults = False, [str(error)]
    if not valid:
        raise BadInput(f"{str(path)!r} is not a Flower app: {_first_line(faults[0])}")


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]


def _parse(overrides: Sequence[str]) -> dict[str, Scalar]:
    if len(overrides) == 1 and overrides[0].endswith(".toml") and "=" not in overrides[0]:
        return _parse_file(Path(overrides[0]).expanduser())
    values: dict[str, Scalar] = {}
    for text in overrides:
        junk = OVERRIDE.sub("", text).split()
        if junk:
            raise ConfigError(f"{junk[0]!r} is not a key=value pair: write e.g. epsilon=1.0")
        values |= {key: _parse_value(value) for key, value in OVERRIDE.findall(text)}
    return values


def _parse_file(path: Path) -> dict[str, Scalar]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read as TOML: {error}") from error


def _parse_value(text: str) -> Scalar:
    """A TOML value; a bare word is a string, which spares nested quotes on the command line."""
    try:
        value: Scalar = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value
