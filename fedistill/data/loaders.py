"""`load_table`: a shipped data set, or a CSV, Parquet or npz file, as one `Table`."""

import os
from pathlib import Path

import numpy as np

from fedistill.data.arrow import read_parquet
from fedistill.data.columns import class_indices, feature, site_names
from fedistill.data.files import (
    SUFFIXES,
    RawColumns,
    missing_column,
    named_columns,
    read_file,
)
from fedistill.data.shipped import SHIPPED
from fedistill.data.table import Rows, Table
from fedistill.data.wording import listing, nearest
from fedistill.errors import DataError


def load_table(dataset: str, *, label_column: str = "", site_column: str = "") -> Table:
    """Read a data set.

    Args:
        dataset: Name of a shipped set, or absolute path of a `.csv`, `.parquet` or `.npz` file.
        label_column: The column to predict; "" means the set's own, `y` in npz. CSV and Parquet
            files need it.
        site_column: The column that says whose row it is; "" means that no column does. Neither
            of the two is a feature.

    Returns:
        Feature columns in the file's order, float32, NaN where a value is missing; labels as
        indices into the sorted classes.

    Raises:
        DataError: Names the field, its value and the bound.
    """
    raw, class_names = _read(dataset, label_column, site_column)
    label_column = label_column or raw.label_column
    _check_roles(raw, label_column, site_column)
    columns = {**raw.columns, **raw.extras}
    labels, classes = class_indices(columns[label_column], label_column, class_names)
    names = tuple(name for name in raw.columns if name not in (label_column, site_column))
    return Table(
        columns=names,
        rows=_features(raw, names, len(labels)),
        labels=labels,
        classes=classes,
        site=site_names(columns[site_column], site_column) if site_column else None,
        name=raw.name,
    )


def _read(dataset: str, label_column: str, site_column: str) -> tuple[RawColumns, tuple[str, ...]]:
    """The columns of `dataset`, and the names of its classes where a shipped set states them."""
    if not _is_path(dataset):
        raw = _read_shipped(dataset)
        own = label_column in ("", raw.label_column)
        return raw, SHIPPED[dataset].class_names if own else ()
    path = Path(os.path.expanduser(dataset))
    if not path.is_absolute():
        raise DataError(
            f"dataset={dataset!r} must be an absolute path, since the processes of a run have "
            f"other working directories: write {str(Path.cwd() / path)!r}"
        )
    return read_file(path, (label_column, site_column)), ()


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


def _check_roles(raw: RawColumns, label_column: str, site_column: str) -> None:
    known = [*raw.columns, *raw.extras]
    if not label_column:
        raise DataError(
            f"label-column='' must name the column to predict in {raw.source}: choose one of "
            f"{listing(known)}"
        )
    if label_column not in known:
        raise missing_column("label-column", label_column, raw)
    if site_column and site_column not in known:
        raise missing_column("site-column", site_column, raw)
    if site_column == label_column:
        raise DataError(
            f"site-column={site_column!r} must differ from label-column: choose another column"
        )


def _features(raw: RawColumns, names: tuple[str, ...], num_rows: int) -> Rows:
    """The feature columns side by side, (num_rows, num_columns), C order."""
    if not names:
        raise DataError(
            f"{raw.source} has 0 feature columns and must have at least 1: add a column to learn "
            "from"
        )
    rows = np.empty((num_rows, len(names)), dtype=np.float32)
    for j, name in enumerate(names):
        rows[:, j] = feature(raw.columns[name], name)
    return rows
