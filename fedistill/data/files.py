"""Reading CSV, Parquet and npz files into named columns, before any column has a role."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa

from fedistill.data.arrow import read_csv, read_parquet
from fedistill.data.columns import Column
from fedistill.data.npz import read_npz
from fedistill.data.wording import listing, repeated, suggestion
from fedistill.errors import DataError

SUFFIXES = (".csv", ".npz", ".parquet")

_PARQUET_MAGIC = b"PAR1"
_ZIP_MAGIC = b"PK\x03\x04"
_BROKEN = (
    pa.ArrowException,
    EOFError,
    RuntimeError,  # zipfile: encrypted, or an unknown compression
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class RawColumns:
    """A file's columns as it stores them.

    Attributes:
        name: The file's name without its suffix.
        source: What messages call the file.
        columns: Columns that are features unless they get another role.
        extras: Columns that are never features.
        label_column: The label column that the format itself implies; "" without one.
    """

    name: str
    source: str
    columns: Mapping[str, Column]
    extras: Mapping[str, Column] = field(default_factory=dict)
    label_column: str = ""


def read_file(path: Path, wanted: tuple[str, ...]) -> RawColumns:
    """Read a file by the suffix of its name.

    Args:
        path: Absolute path.
        wanted: Columns that will be labels, sites or units; an npz file may keep them as own
            arrays.

    Raises:
        DataError: The file does not exist, cannot be read, is not what its suffix says, or its
            columns have no or repeated names.
    """
    source, suffix = f"dataset={str(path)!r}", path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"dataset={str(path)!r} must end in {', '.join(SUFFIXES)}: convert the file, or rename "
            "it if it is one of these"
        )
    try:
        with path.open("rb") as file:
            _check_magic(file, path, suffix)
            if suffix == ".npz":
                stored, extras = read_npz(file, source, wanted)
            else:
                stored, extras = (read_csv if suffix == ".csv" else read_parquet)(file), {}
    except OSError as error:
        # Arrow raises OSError without a number where the content is at fault.
        if error.errno is None:
            raise _not_what_it_says(path, suffix, _first_line(error)) from None
        raise DataError(
            f"dataset={str(path)!r} cannot be read ({error.strerror}): check the path and "
            "its permissions"
        ) from None
    except _BROKEN as error:
        raise _not_what_it_says(path, suffix, _first_line(error)) from None
    if suffix == ".csv":
        _check_separator(stored, source)
    return RawColumns(
        name=path.stem,
        source=source,
        columns=named_columns(stored, source),
        extras=extras,
        label_column="y" if suffix == ".npz" else "",
    )


def named_columns(columns: list[tuple[str, Column]], source: str) -> dict[str, Column]:
    """Columns by name.

    Raises:
        DataError: A name is empty or repeated, or a column is a data frame's index.
    """
    names = [name for name, _ in columns]
    if "" in names:
        raise DataError(
            f"{source}: column {names.index('') + 1} of {len(names)} has no name, and every "
            "column must have one: name it, or leave a data frame's index out of the file"
        )
    index = [name for name in names if name.startswith("__index_level_")]
    if index:
        raise DataError(
            f"{source}: column {index[0]!r} is a data frame's index and must not be in the file: "
            "write it without the index"
        )
    twice = repeated(names)
    if twice:
        raise DataError(
            f"{source}: columns {listing(twice)} are there more than once, and names must "
            "differ: rename or drop the repeated ones"
        )
    return dict(columns)


def _check_magic(file: IO[bytes], path: Path, suffix: str) -> None:
    """Refuse a file whose first bytes belong to another format."""
    start = file.read(4096)
    file.seek(0)
    if suffix == ".parquet" and not start.startswith(_PARQUET_MAGIC):
        raise _not_what_it_says(path, suffix, "it does not start with 'PAR1'")
    if suffix == ".npz" and not start.startswith(_ZIP_MAGIC):
        raise _not_what_it_says(path, suffix, "it is no zip archive of arrays")
    if suffix == ".csv" and (start.startswith((_PARQUET_MAGIC, _ZIP_MAGIC)) or b"\0" in start):
        raise _not_what_it_says(path, suffix, "it holds binary data")


def _not_what_it_says(path: Path, suffix: str, reason: str) -> DataError:
    kind = {".csv": "a CSV", ".npz": "an npz", ".parquet": "a Parquet"}[suffix]
    return DataError(
        f"dataset={str(path)!r} must be {kind} file, as its name says, but {reason}: write it "
        f"again as {kind} file, or rename it"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_separator(columns: list[tuple[str, Column]], source: str) -> None:
    """A header that was not cut at commas would only show as a missing label column."""
    header = columns[0][0]
    used = next((mark for mark in ";\t|" if mark in header), None)
    if len(columns) == 1 and used:
        raise DataError(
            f"{source} separates columns by {used!r}, which must be a comma: write it with commas"
        )


def missing_column(field: str, name: str, raw: RawColumns) -> DataError:
    """The error for a column that a file does not have."""
    known = [*raw.columns, *raw.extras]
    return DataError(f"{field}={name!r} is no column of {raw.source}: {suggestion(name, known)}")
