"""`load_table`: a shipped data set, or a CSV, Parquet or npz file, as one `Table`."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedistill.data.arrow import read_parquet
from fedistill.data.coding import check_types
from fedistill.data.columns import Column
from fedistill.data.files import (
    SUFFIXES,
    RawColumns,
    missing_column,
    named_columns,
    read_file,
)
from fedistill.data.roles import (
    check_units_stay,
    class_indices,
    labels_of_classes,
    site_names,
    unit_codes,
)
from fedistill.data.shipped import SHIPPED
from fedistill.data.table import Labels, Table
from fedistill.data.wording import listing, nearest
from fedistill.errors import DataError


def load_table(
    dataset: str,
    *,
    label_column: str = "",
    site_column: str = "",
    unit_column: str = "",
    ignore_columns: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
) -> Table:
    """Read a data set.

    Args:
        dataset: Name of a shipped set, or absolute path of a `.csv`, `.parquet` or `.npz` file.
        label_column: The column to predict; "" means the set's own, `y` in npz. CSV and Parquet
            files need it.
        site_column: The column that says whose row it is; "" means that no column does.
        unit_column: The column that says whom a row is about; "" means that each row is about
            somebody else.
        ignore_columns: Columns that are no features, like the three above.
        classes: The agreed classes; labels outside are no labels. () takes the classes of all
            rows, sorted.

    Returns:
        Feature columns in the file's order, as they are stored.

    Raises:
        DataError: Names the field, its value and the bound.
    """
    roles = {"label-column": label_column, "site-column": site_column, "unit-column": unit_column}
    raw, class_names = _read(dataset, tuple(roles.values()))
    roles["label-column"] = label_column = label_column or raw.label_column
    _check_roles(raw, roles, ignore_columns)
    columns = {**raw.columns, **raw.extras}
    labels, names, unlabelled = _labels(columns[label_column], label_column, class_names, classes)
    site = site_names(columns[site_column], site_column) if site_column else None
    units = unit_codes(columns[unit_column], unit_column) if unit_column else None
    if site is not None and units is not None:
        check_units_stay(units, site, unit_column)
    return Table(
        columns=_features(raw, {*roles.values(), *ignore_columns}),
        labels=labels,
        classes=names,
        name=raw.name,
        site=site,
        units=units,
        unlabelled=unlabelled,
    )


def _read(dataset: str, wanted: tuple[str, ...]) -> tuple[RawColumns, tuple[str, ...]]:
    """The columns of `dataset`, and the names of its classes where a shipped set states them."""
    if not _is_path(dataset):
        raw = _read_shipped(dataset)
        own = wanted[0] in ("", raw.label_column)
        return raw, SHIPPED[dataset].class_names if own else ()
    path = Path(os.path.expanduser(dataset))
    if not path.is_absolute():
        raise DataError(
            f"dataset={dataset!r} must be an absolute path, since the processes of a run have "
            f"other working directories: write {str(Path.cwd() / path)!r}"
        )
    return read_file(path, wanted), ()


def _is_path(dataset: str) -> bool:
    return "/" in dataset or dataset.startswith("~") or Path(dataset).suffix.lower() in SUFFIXES


def _read_shipped(dataset: str) -> RawColumns:
    if dataset not in SHIPPED:
        found = nearest(dataset, SHIPPED)
        hint = f"did you mean {found!r}?" if found else "give one of these or an absolute path"
        raise DataError(
            f"dataset={dataset!r} must be a shipped data set ({listing(SHIPPED)}) or the absolute "
            f"path of a {', '.join(SUFFIXES)} file: {hint}"
        )
    shipped = SHIPPED[dataset]
    with shipped.path.open("rb") as file:
        stored = read_parquet(file)
    source = f"dataset={dataset!r}"
    columns = named_columns(stored, source)
    return RawColumns(
        name=dataset,
        source=source,
        columns={name: column for name, column in columns.items() if name != shipped.site_column},
        extras={name: column for name, column in columns.items() if name == shipped.site_column},
        label_column=shipped.label_column,
    )


def _check_roles(raw: RawColumns, roles: dict[str, str], ignored: tuple[str, ...]) -> None:
    known = [*raw.columns, *raw.extras]
    if not roles["label-column"]:
        raise DataError(
            f"label-column='' must name the column to predict in {raw.source}: choose one of "
            f"{listing(known)}"
        )
    fields: dict[str, str] = {}
    for field, name in roles.items():
        if name and name not in known:
            raise missing_column(field, name, raw)
        if name and name in fields:
            raise DataError(
                f"{field}={name!r} must differ from {fields[name]}: choose another column"
            )
        fields[name] = field
    for name in ignored:
        if name not in known:
            raise missing_column("ignore-columns", name, raw)


def _labels(
    column: Column, name: str, class_names: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[Labels, tuple[str, ...], npt.NDArray[np.str_] | None]:
    """Indices, the classes they stand for, and why rows have none."""
    if not classes or classes == class_names:
        return *class_indices(column, name, class_names), None
    labels, unlabelled = labels_of_classes(column, name, classes)
    return labels, classes, unlabelled


def _features(raw: RawColumns, without: set[str]) -> dict[str, Column]:
    features = {name: column for name, column in raw.columns.items() if name not in without}
    if not features:
        raise DataError(
            f"{raw.source} has 0 feature columns and must have at least 1: add a column to learn "
            "from"
        )
    check_types(features)
    return features
