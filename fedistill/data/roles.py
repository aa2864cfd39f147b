"""Columns that are no features: labels, whose site a row belongs to, and whom it is about."""

import numpy as np
import numpy.typing as npt

from fedistill.data.columns import Column, Positions
from fedistill.data.schema import Kind
from fedistill.data.table import Labels
from fedistill.data.texts import category
from fedistill.data.wording import shown
from fedistill.errors import DataError

MOST_CLASSES = 100
MOST_SITES = 1000
MISSING_LABEL = "label is missing"

_LONGEST_SITE_NAME = 64
_EXACT_IN_FLOAT64 = 2.0**53


def class_indices(
    column: Column, name: str, class_names: tuple[str, ...] = ()
) -> tuple[Labels, tuple[str, ...]]:
    """Labels as indices into the sorted classes of all rows.

    Args:
        column: Integers, whole floats, strings or booleans.
        name: Name of the label column.
        class_names: Names of the sorted classes; () takes the values themselves.

    Returns:
        (num_rows,) int64 indices, -1 where the label is missing; and the names of the classes.

    Raises:
        DataError: There are fewer than 2 or more than 100 classes, or no row.
    """
    _check_values(column, name, "label-column")
    if len(column) == 0:
        raise DataError(
            f"label-column={name!r} has 0 rows and must have at least 1: bring rows with labels"
        )
    labels, classes = _distinct(column, same_spelling=True)
    if len(classes) < 2:
        found = f"1 class ({classes[0]})" if classes else "0 classes"
        raise DataError(
            f"label-column={name!r} has {found} and must have at "
            "least 2: choose another column or bring rows of the other classes"
        )
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"label-column={name!r} has {len(classes)} distinct values and must have at most "
            f"{MOST_CLASSES} classes: choose a column of classes, or put its values into bins"
        )
    return labels, class_names or tuple(classes)


def labels_of_classes(
    column: Column, name: str, classes: tuple[str, ...]
) -> tuple[Labels, npt.NDArray[np.str_]]:
    """Labels as indices into agreed classes; a row's answer depends on that row alone.

    Returns:
        (num_rows,) int64 indices, -1 where the label is missing or no class; and (num_rows,) why
        a row has no index, "" where it has one.

    Raises:
        DataError: The column's type can hold no label.
    """
    if column.kind is None:
        raise _wrong_type(column, name, "label-column")
    position = {category(text): k for k, text in enumerate(classes)}
    found, texts = column.spelled()
    spelled = [category(text) for text in texts]
    known = [position.get(text, -1) for text in spelled]
    reasons = [
        f"column {name!r} holds {shown(text)}, which is no class" if k < 0 else ""
        for k, text in zip(known, spelled, strict=True)
    ]
    indices = np.array([*known, -1], dtype=np.int64)
    return indices[found], np.array([*reasons, MISSING_LABEL])[found]


def site_names(column: Column, name: str) -> tuple[str, ...]:
    """Whose row it is, (num_rows,): text, integers or booleans become strings.

    Raises:
        DataError: A site is missing, cannot name a file, or there are more than 1000.
    """
    _check_values(column, name, "site-column")
    _refuse_missing(column, name, "site-column")
    positions, sites = _distinct(column)
    if len(sites) > MOST_SITES:
        raise DataError(
            f"site-column={name!r} has {len(sites)} distinct values and must have at most "
            f"{MOST_SITES} sites: choose the column that names the institution"
        )
    for site in sites:
        if not _names_a_file(site):
            raise DataError(
                f"site-column={name!r} holds {site!r}, and a site's name must have at most "
                f"{_LONGEST_SITE_NAME} printable characters, no slash and no leading dot or "
                "space: rename this site"
            )
    return tuple(sites[k] for k in positions)


def unit_codes(column: Column, name: str) -> Labels:
    """Whom each row is about, (num_rows,) int64 codes: equal values have equal codes.

    Raises:
        DataError: A row has no unit, or the column's type can name none.
    """
    if column.kind is None:
        raise _wrong_type(column, name, "unit-column")
    _refuse_missing(column, name, "unit-column")
    if column.kind is Kind.CATEGORY:
        return _distinct(column)[0]
    return np.unique(column.values, return_inverse=True)[1].astype(np.int64)


def check_units_stay(units: Labels, site: tuple[str, ...], unit_column: str) -> None:
    """Refuse units at two sites: each site would bound and account for its own part only.

    Raises:
        DataError: Says how many units have rows at more than one site.
    """
    _, code = np.unique(np.array(site), return_inverse=True)
    pairs = np.unique(np.column_stack([units, code]), axis=0)
    _, num_sites = np.unique(pairs[:, 0], return_counts=True)
    moved = int((num_sites > 1).sum())
    if moved:
        raise DataError(
            f"unit-column={unit_column!r} has {moved} of {len(num_sites)} units with rows at more "
            "than one site, and all rows of a unit must be at one site: give such rows to one "
            "site, or leave them out"
        )


def _distinct(column: Column, *, same_spelling: bool = False) -> tuple[Positions, list[str]]:
    """Positions in the sorted distinct values, -1 where missing, and these values as texts."""
    positions, texts = column.spelled()
    if column.kind is not Kind.CATEGORY or not texts:
        return positions, texts
    spelled = [category(text) for text in texts] if same_spelling else texts
    distinct, lookup = np.unique(np.array(spelled), return_inverse=True)
    return np.append(lookup, -1)[positions], [str(text) for text in distinct]


def _names_a_file(site: str) -> bool:
    """Sites name folders and ledgers."""
    plain = site.isprintable() and not {"/", "\\"} & set(site)
    return plain and len(site) <= _LONGEST_SITE_NAME and site == site.strip() and site[0] != "."


def _check_values(column: Column, name: str, field: str) -> None:
    """Refuse columns that hold anything but text, integers or booleans."""
    if column.kind is None or column.kind is Kind.DATE:
        raise _wrong_type(column, name, field)
    if column.kind is not Kind.NUMBER:
        return
    numbers = column.values[~column.missing()].astype(np.float64)
    fraction = (numbers != np.trunc(numbers)) | (np.abs(numbers) > _EXACT_IN_FLOAT64)
    if fraction.any():
        raise DataError(
            f"{field}={name!r} holds {numbers[fraction][0]} in {int(fraction.sum())} rows and must "
            "hold integers, strings or booleans: choose a column of classes, or put its values "
            "into bins"
        )


def _wrong_type(column: Column, name: str, field: str) -> DataError:
    return DataError(
        f"{field}={name!r} holds values of type {column.stored_as} and must hold integers, "
        "strings or booleans: choose another column"
    )


def _refuse_missing(column: Column, name: str, field: str) -> None:
    missing = int(column.missing().sum())
    if missing:
        raise DataError(
            f"{field}={name!r} is missing (NaN or empty) in {missing} of {len(column)} "
            "rows, and every row must have a value: fill these rows or remove them"
        )
