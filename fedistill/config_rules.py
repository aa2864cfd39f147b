"""Rules for the values of single run-config keys, and the sentences that refuse them."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import ErrorDetails, PydanticCustomError

Scalar = bool | int | float | str

DATA_SUFFIXES = (".csv", ".npz", ".parquet")
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
STUDENTS = ("mlp", "cnn", "resnet", "vit", "encoder")
SELF_SUPERVISED = "self-supervised"
"""The encoder that a simulation trains on its own proxy images."""

RECIPES = ("auto", "curriculum", "four-term", "mean-teacher", "mixup", "noise-aware")
TEACHER_FILES = (".onnx", ".safetensors")
IMPORT_PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


def _refuse(bound: str, advice: str) -> PydanticCustomError:
    """An error that `_sentence` completes with the key and its value."""
    context = {"bound": bound, "advice": advice}
    return PydanticCustomError("fedistill", "{bound}: {advice}", context)


def one_of(*choices: Scalar) -> AfterValidator:
    """A rule that takes these values only."""

    def check(value: Scalar) -> Scalar:
        if value not in choices:
            only = len(choices) == 1
            raise _refuse(
                "must be " + " or ".join(_show(choice) for choice in choices),
                "this version offers no other value" if only else "choose one of these",
            )
        return value

    return AfterValidator(check)


def _absolute(value: str) -> str:
    """Expand `~`; refuse relative paths, since a Flower client has another working directory."""
    if not value:
        return value
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise _refuse("must be an absolute path", f"write {_show(str(Path.cwd() / path))}")
    return str(path)


def dataset(value: str) -> str:
    """A name, or a full path."""
    if not value:
        raise _refuse("must name a data set", "give the name of a shipped set or a full path")
    is_path = "/" in value or value.startswith("~") or value.lower().endswith(DATA_SUFFIXES)
    return _absolute(value) if is_path else value


def encoder(value: str) -> str:
    """Nothing, a full path of an ONNX file, `package.module:factory`, or `self-supervised`."""
    if "/" in value or value.startswith("~") or value.lower().endswith(".onnx"):
        return _absolute(value)
    if value and value != SELF_SUPERVISED and not IMPORT_PATH.fullmatch(value):
        raise _refuse(
            "must be the full path of an ONNX file, an import path 'package.module:factory' or "
            f"{SELF_SUPERVISED!r}",
            "write one of these",
        )
    return value


def student(value: str) -> str:
    """A name that there is, or `package.module:factory`."""
    if value not in STUDENTS and not IMPORT_PATH.fullmatch(value):
        names = ", ".join(_show(name) for name in STUDENTS)
        raise _refuse(
            f"must be {names} or an import path 'package.module:factory'", "choose one of these"
        )
    return value


def recipe(value: str) -> str:
    """`auto`, a preset, or the full path of a TOML file."""
    if value in RECIPES:
        return value
    if not value.lower().endswith(".toml"):
        names = ", ".join(_show(name) for name in RECIPES)
        raise _refuse(
            f"must be {names} or the full path of a file that ends in '.toml'",
            "choose one of these",
        )
    return _absolute(value)


def public_teacher(value: str) -> str:
    """Nothing, a full path of an ONNX or safetensors file, or `package.module:factory`."""
    if "/" in value or value.startswith("~") or value.lower().endswith(TEACHER_FILES):
        if not value.lower().endswith(TEACHER_FILES):
            raise _refuse("must end in '.onnx' or '.safetensors'", "name such a file")
        return _absolute(value)
    if value and not IMPORT_PATH.fullmatch(value):
        raise _refuse(
            "must be the full path of an ONNX or safetensors file or an import path "
            "'package.module:factory'",
            "write one of these",
        )
    return value


def partition(value: str) -> str:
    """`iid`, `quantile:COLUMN` or `dirichlet:ALPHA`."""
    if value.startswith("dirichlet:") and not _is_alpha(value.removeprefix("dirichlet:")):
        raise _refuse(
            "must be 'dirichlet:ALPHA' with a number ALPHA above 0 and at most 1000",
            "write for instance 'dirichlet:0.3'",
        )
    if value != "iid" and not re.fullmatch(r"(quantile|dirichlet):\S.*", value):
        raise _refuse(
            "must be 'iid', 'quantile:COLUMN' or 'dirichlet:ALPHA'", "choose one of these"
        )
    return value


def _is_alpha(text: str) -> bool:
    try:
        return 0 < float(text) <= 1000
    except ValueError:
        return False


def columns(value: str) -> str:
    """Names with commas between them, none of them empty."""
    names = split_names(value)
    if "" in names:
        raise _refuse("must be column names with commas between them", "remove a comma")
    return ",".join(names)


def class_names(value: str) -> str:
    """Nothing, or at least two different names with commas between them."""
    names = split_names(value)
    if names and (len(set(names)) < max(2, len(names)) or "" in names):
        raise _refuse(
            "must be at least two different classes with commas between them",
            "name each class once, in the order agreed with the sites",
        )
    return ",".join(names)


def site_names(value: str) -> str:
    """Names that may name folders, with commas between them."""
    names = split_names(value)
    for name in names:
        if not SITE_NAME.fullmatch(name):
            raise _refuse(
                f"names {name!r}, and a site's name must be 1 to 64 letters, digits, '_', '.' "
                "or '-' that start with a letter or digit",
                "rename this site",
            )
    return ",".join(names)


def site_mechanisms(value: str) -> str:
    """`SITE=MECHANISM[:TEACHER]` with commas between; each site once."""
    sites = []
    for entry in split_names(value):
        site, _, answer = (part.strip() for part in entry.partition("="))
        if not site or not answer.partition(":")[0].strip():
            raise _refuse("must be 'SITE=MECHANISM' or 'SITE=MECHANISM:TEACHER'", f"fix {entry!r}")
        sites.append(site)
    twice = [site for site in sites if sites.count(site) > 1]
    if twice:
        raise _refuse("must name each site once", f"{twice[0]!r} is there twice")
    return value


def split_names(names: str) -> tuple[str, ...]:
    """The names between the commas; none in an empty text."""
    return tuple(name.strip() for name in names.split(",")) if names.strip() else ()


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


def unknown_key(key: str, known: list[str]) -> str:
    """What to say of a key that is none, with the nearest that is."""
    nearest = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "`fedistill config` lists them all"
    return f"unknown key {key!r}: {hint}"


_BOUNDS = {
    "greater_than": ("gt", "must be greater than {}", "raise {}"),
    "greater_than_equal": ("ge", "must be at least {}", "raise {}"),
    "less_than": ("lt", "must be less than {}", "lower {}"),
    "less_than_equal": ("le", "must be at most {}", "lower {}"),
}

_TYPES = {
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "string_type": "must be a string in quotes",
    "finite_number": "must be a finite number",
}


def sentence(error: ErrorDetails) -> str:
    """Field, value and bound of a validation error, then what to do."""
    key, value, context = str(error["loc"][0]), _show(error["input"]), error.get("ctx", {})
    if error["type"] in _BOUNDS:
        name, bound, advice = _BOUNDS[error["type"]]
        limit = f"{context[name]:g}" if isinstance(context[name], float) else context[name]
        return f"{key}={value} {bound.format(limit)}: {advice.format(key)}"
    if error["type"] in _TYPES:
        return f"{key}={value} {_TYPES[error['type']]}: change its value"
    return f"{key}={value} {error['msg']}"


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
