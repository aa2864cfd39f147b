"""What the planner may see: public rows, with public labels where there are any."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedistill.data import SHIPPED, Column, ProxySet, code_rows, infer_schema, load_table
from fedistill.data.coding import check_types
from fedistill.data.files import read_file
from fedistill.data.table import Labels
from fedistill.errors import DataError

FEWEST_ROWS = 40
"""Proxy rows and rows to score are cut from them."""

FEWEST_LABELS = 10
"""Labelled rows of each class: a model is fitted, calibrated and scored on them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicRows:
    """Public rows.

    Attributes:
        rows: Coded by the schema that they declare themselves.
        labels: (num_rows,) in 0..num_classes-1, or None where they have none.
        num_classes: Classes of the task.
        name: What the user calls them.

    Raises:
        DataError: Too few rows, or too few of a class.
    """

    rows: ProxySet
    labels: Labels | None
    num_classes: int
    name: str

    def __post_init__(self) -> None:
        if len(self.rows.rows) < FEWEST_ROWS:
            raise DataError(
                f"proxy={self.name!r} has {len(self.rows.rows)} rows to plan with and must have at "
                f"least {FEWEST_ROWS}: bring more public rows"
            )
        if self.labels is None:
            return
        counts = np.bincount(self.labels, minlength=self.num_classes)
        if counts.min() < FEWEST_LABELS:
            raise DataError(
                f"proxy={self.name!r} has {counts.min()} labelled rows of class {counts.argmin()} "
                f"and must have at least {FEWEST_LABELS} of each: bring more, or leave out "
                "--label-column to plan without labels"
            )


def read_public_rows(source: str, *, num_classes: int, label_column: str = "") -> PublicRows:
    """Public rows of a file or a shipped set.

    Args:
        source: Path of a `.csv`, `.parquet` or `.npz` file, or the name of a shipped set.
        num_classes: Classes of the task, at least 2.
        label_column: A column of public labels; "" reads none, even where there are some.

    Raises:
        DataError: The source cannot be read, or has too few rows, or not these classes.
    """
    if source not in SHIPPED and Path(source).suffix:
        source = str(Path(source).expanduser().resolve())
    if not label_column and source not in SHIPPED and Path(source).suffix:
        raw = read_file(Path(source), ())
        check_types(raw.columns)
        return PublicRows(
            rows=_coded(raw.columns, None), labels=None, num_classes=num_classes, name=raw.name
        )
    table = load_table(source, label_column=label_column)
    if not label_column:
        rows = _coded(table.columns, None)
        return PublicRows(rows=rows, labels=None, num_classes=num_classes, name=table.name)
    if len(table.classes) != num_classes:
        raise DataError(
            f"classes={num_classes} must be {len(table.classes)}, the number of different values "
            f"of label-column={label_column!r}: give --classes {len(table.classes)}, or name "
            "another column"
        )
    labelled = np.flatnonzero(table.labels >= 0)
    return PublicRows(
        rows=_coded(table.columns, labelled),
        labels=table.labels[labelled],
        num_classes=num_classes,
        name=table.name,
    )


def _coded(columns: Mapping[str, Column], index: Labels | None) -> ProxySet:
    if index is None:
        index = np.arange(len(next(iter(columns.values())).missing()))
    schema = infer_schema(columns, index)
    return ProxySet(schema=schema, rows=code_rows(columns, schema, index)[0])
