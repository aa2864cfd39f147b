"""Tables of arrays, files of lines, and the codes of a whole table."""

from pathlib import Path
from typing import Any

import numpy as np

from fedistill.data import Column, Schema, Table, code_rows, infer_schema, load_table
from fedistill.data.table import Rows

MISSING = float("nan")


def rows_of(table: Table) -> Rows:
    """All rows, coded by a schema of all rows."""
    rows, misfit = code_rows(table.columns, schema_of(table), everything(table))
    assert not any(misfit)
    return rows


def schema_of(table: Table) -> Schema:
    """The schema that a proxy set of all rows would have."""
    return infer_schema(table.columns, everything(table))


def everything(table: Table) -> Any:
    return np.arange(len(table.labels))


def columns(**values: list[Any]) -> dict[str, Column]:
    """Columns of numbers, booleans or texts."""
    return {name: Column.of(np.array(column)) for name, column in values.items()}


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def table_of(path: Path, *lines: str, **roles: Any) -> Table:
    """The table of a CSV file of these lines; its label column is `y`, of classes a and b."""
    written = write_csv(path, *lines)
    return load_table(str(written), **({"label_column": "y", "classes": ("a", "b")} | roles))
