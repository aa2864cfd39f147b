"""Columns as a file stores them, turned into features, class indices and site names."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.data.table import Labels
from fedistill.data.wording import listing
from fedistill.errors import DataError

MOST_CLASSES = 100
MOST_SITES = 1000

_LONGEST_SITE_NAME = 64
_MISSING_TEXTS = ("", "nan")
_EXACT_IN_FLOAT64 = 2.0**53


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column, whatever the file's format.

    Attributes:
        values: (num_rows,) numbers with NaN where empty, booleans, or strings with "" where empty;
            None where the column holds something else.
        kind: The column's type as its format calls it.
    """

    values: npt.NDArray[Any] | None
    kind: str

    @property
    def numbers(self) -> npt.NDArray[Any] | None:
        """Numbers or booleans, or None."""
        return None if self.values is None or self.values.dtype.kind == "U" else self.values

    @property
    def text(self) -> npt.NDArray[np.str_] | None:
        """Strings, or None."""
        return self.values if self.values is not None and self.values.dtype.kind == "U" else None


def feature(column: Column, name: str) -> npt.NDArray[np.float32]:
    """A numeric column as float32, (num_rows,), NaN where it is empty; booleans are 0 and 1.

    Raises:
        DataError: Names the column that is not numeric, or is infinite in float32.
    """
    values = column.numbers
    if values is None:
        raise DataError(
            f"column {name!r} holds {_describe(column)}, and feature columns must be numbers or "
            "booleans: code it as numbers (one 0/1 column for each category), or drop it"
        )
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    infinite = np.isinf(rounded)
    if infinite.any():
        raise DataError(
            f"column {name!r} holds {values[infinite][0]} in {int(infinite.sum())} rows, and "
            f"values must be finite and at most {np.finfo(np.float32).max:.3g}: leave missing "
            "values empty or NaN, and scale the column"
        )
    return rounded


def class_indices(
    column: Column, name: str, class_names: tuple[str, ...] = ()
) -> tuple[Labels, tuple[str, ...]]:
    """Labels as indices into the sorted classes.

    Args:
        column: Integers, whole floats, strings or booleans.
        name: Name of the label column.
        class_names: Names of the sorted classes; () takes the values themselves.

    Returns:
        (num_rows,) int64 indices, and the names of the classes.

    Raises:
        DataError: A label is missing or no class, or there are fewer than 2 or more than 100
            classes.
    """
    values = _labels(column, name)
    if len(values) == 0:
        raise DataError(
            f"label-column={name!r} has 0 rows and must have at least 1: bring rows with labels"
        )
    classes, labels = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"label-column={name!r} has {len(classes)} class ({classes[0]!s}) and must have at "
            "least 2: choose another column or bring rows of the other classes"
        )
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"label-column={name!r} has {len(classes)} distinct values and must have at most "
            f"{MOST_CLASSES} classes: choose a column of classes, or put its values into bins"
        )
    names = class_names or tuple(_class_name(value) for value in classes)
    return labels.astype(np.int64), names


def site_names(column: Column, name: str) -> tuple[str, ...]:
    """Whose row it is, (num_rows,): text, integers or booleans become strings.

    Raises:
        DataError: A site is missing, cannot name a file, or there are more than 1000.
    """
    values = column.text
    if values is None:
        numbers = _labels(column, name, field="site-column")
        values = np.array([_class_name(value) for value in numbers])
    _refuse_missing(_is_missing_text(values), name, "site-column")
    sites = np.unique(values)
    if len(sites) > MOST_SITES:
        raise DataError(
            f"site-column={name!r} has {len(sites)} distinct values and must have at most "
            f"{MOST_SITES} sites: choose the column that names the institution"
        )
    for site in sites:
        if not _names_a_file(str(site)):
            raise DataError(
                f"site-column={name!r} holds {str(site)!r}, and a site's name must have at most "
                f"{_LONGEST_SITE_NAME} printable characters, no slash and no leading dot or "
                "space: rename this site"
            )
    return tuple(str(value) for value in values)


def _names_a_file(site: str) -> bool:
    """Sites name folders and ledgers."""
    plain = site.isprintable() and not {"/", "\\"} & set(site)
    return plain and len(site) <= _LONGEST_SITE_NAME and site == site.strip() and site[0] != "."


def _labels(
    column: Column, name: str, field: str = "label-column"
) -> npt.NDArray[np.str_] | npt.NDArray[np.int64] | npt.NDArray[np.bool_]:
    """Text, integers or booleans, none of them missing."""
    if column.text is not None:
        _refuse_missing(_is_missing_text(column.text), name, field)
        return column.text
    if column.numbers is None:
        raise DataError(
            f"{field}={name!r} holds {_describe(column)} and must hold integers, strings or "
            "booleans: choose another column"
        )
    if column.numbers.dtype.kind == "b":
        return column.numbers
    numbers = column.numbers.astype(np.float64)
    _refuse_missing(np.isnan(numbers), name, field)
    fraction = (numbers != np.trunc(numbers)) | (np.abs(numbers) > _EXACT_IN_FLOAT64)
    if fraction.any():
        raise DataError(
            f"{field}={name!r} holds {numbers[fraction][0]} in {int(fraction.sum())} rows and must "
            "hold integers, strings or booleans: choose a column of classes, or put its values "
            "into bins"
        )
    return numbers.astype(np.int64)


def _is_missing_text(values: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    return np.isin(np.char.lower(np.char.strip(values)), _MISSING_TEXTS)


def _refuse_missing(missing: npt.NDArray[np.bool_], name: str, field: str) -> None:
    if missing.any():
        raise DataError(
            f"{field}={name!r} is missing (NaN or empty) in {int(missing.sum())} of {len(missing)} "
            "rows, and every row must have a value: fill these rows or remove them"
        )


def _class_name(value: np.generic) -> str:
    return str(value).lower() if isinstance(value, np.bool_) else str(value)


def _describe(column: Column) -> str:
    """The column's type, with the first values that are no numbers where it is text."""
    if column.text is None:
        return f"values of type {column.kind}"
    distinct = [str(value) for value in np.unique(column.text) if value]
    return f"text ({listing([value for value in distinct if not _is_number(value)][:3])})"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
