"""Shipped data sets in words, and written as files that look like a user's own."""

import csv
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from fedistill.data import SHIPPED, ShippedSet, load_table
from fedistill.data.wording import listing, suggestion
from fedistill.errors import DataError

SUFFIXES = (".csv", ".parquet")

_LICENCE = re.compile(r"CC0 [\d.]+\d|CC BY(?:-[A-Z]+)* [\d.]+\d")
_PLAIN = re.compile(r"[\w./~-]+")


@dataclass(frozen=True, kw_only=True)
class SetDescription:
    """A shipped set: its size, the roles of its columns, its licence.

    Attributes:
        name: What `dataset` takes.
        rows: How many.
        columns: Features, neither the label nor the site column.
        classes: How many the label has.
        label_column: The column to predict.
        site_column: The column that says whose row it is; "" without one.
        licence: Its short name.
    """

    name: str
    rows: int
    columns: int
    classes: int
    label_column: str
    site_column: str
    licence: str


def describe_sets() -> tuple[SetDescription, ...]:
    """All shipped sets, read from their files."""
    found = []
    for name, shipped in SHIPPED.items():
        table = load_table(name)
        described = SetDescription(
            name=name,
            rows=len(table.labels),
            columns=len(table.columns),
            classes=len(table.classes),
            label_column=shipped.label_column,
            site_column=shipped.site_column,
            licence=_licence(shipped),
        )
        found.append(described)
    return tuple(found)


def licences_in_words(sets: Sequence[SetDescription]) -> str:
    """Which licence is whose: `CC BY 4.0` where all have it."""
    names: dict[str, list[str]] = {}
    for each in sets:
        names.setdefault(each.licence, []).append(each.name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{licence} for {', '.join(whose)}" for licence, whose in names.items())


def write_set(name: str, file: Path, *, force: bool) -> int:
    """Write a shipped set to `file`, whole or not at all: the number of its rows.

    Read back with the same roles it is the same table; classes are sorted by their names then.

    Args:
        name: A shipped set.
        file: Ends in `.csv` or `.parquet`.
        force: Whether a file that is there is replaced.

    Raises:
        DataError: No set has this name, the suffix is another, the file is there already, or it
            cannot be written.
    """
    if name not in SHIPPED:
        raise DataError(
            f"NAME={name!r} must be a shipped data set ({listing(SHIPPED)}): "
            f"{suggestion(name, SHIPPED)}"
        )
    check_new_file(file, force=force)
    return write_table(readable(SHIPPED[name]), file)


def write_table(table: pa.Table, file: Path) -> int:
    """Write a table to a `.csv` or `.parquet` file, whole or not at all: the number of its rows.

    Raises:
        DataError: It cannot be written.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        try:
            if file.suffix.lower() == ".parquet":
                pyarrow.parquet.write_table(table, partial)
            else:
                _write_csv(table, partial)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise DataError(
            f"FILE={str(file)!r} cannot be written ({reason}): choose a folder that exists and "
            "that you may write to"
        ) from None
    return int(table.num_rows)


def roles_in_words(name: str, file: Path) -> str:
    """The run-config keys that read the file as the set's name is read, quoted for a shell."""
    shipped, path = SHIPPED[name], str(file.absolute())
    keys = [
        f"dataset={path if _PLAIN.fullmatch(path) else json.dumps(path, ensure_ascii=False)}",
        f"label-column={shipped.label_column}",
        *([f"site-column={shipped.site_column}"] if shipped.site_column else []),
    ]
    return shlex.quote(" ".join(keys))


def check_new_file(file: Path, *, force: bool) -> None:
    """Refuse a file that cannot be written in its format, or that is there and not to be replaced.

    Raises:
        DataError: Its suffix is another, or the file is there already.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"FILE={str(file)!r} must end in {' or '.join(SUFFIXES)}: choose another name"
        )
    if file.is_dir() or (file.exists() and not force):
        advice = "" if file.is_dir() else ", or replace it with --force"
        raise DataError(f"FILE={str(file)!r} must not be there yet: choose another name{advice}")


def readable(shipped: ShippedSet) -> pa.Table:
    """The set with the names of its classes for their codes, and nulls for NaN."""
    with shipped.path.open("rb") as file:
        table = pyarrow.parquet.read_table(file)
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if field.name == shipped.label_column and shipped.class_names:
            column = _named(column, shipped.class_names)
        elif pa.types.is_floating(field.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        table = table.set_column(index, field.name, column)
    return table.replace_schema_metadata()


def _named(codes: pa.ChunkedArray, class_names: tuple[str, ...]) -> pa.ChunkedArray:
    """The class names of codes, of which the sorted distinct ones stand for them in order."""
    values = codes.to_pylist()
    names = dict(zip(sorted({v for v in values if v is not None}), class_names, strict=True))
    return pa.chunked_array([pa.array([names.get(value) for value in values], pa.string())])


def _write_csv(table: pa.Table, path: Path) -> None:
    columns = [column.cast(pa.string()).to_pylist() for column in table.columns]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(zip(*columns, strict=True))


def _licence(shipped: ShippedSet) -> str:
    """The short name of the licence, as its file states it."""
    found = _LICENCE.search(shipped.licence.read_text(encoding="utf-8"))
    return found[0] if found else shipped.licence.name
