"""A table whose column of free text is replaced by what a public encoder makes of each text."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from fedistill.cli.shipped_file import check_new_file, write_table
from fedistill.data.columns import Column
from fedistill.data.files import RawColumns, missing_column, read_file
from fedistill.data.schema import Kind
from fedistill.data.wording import listing
from fedistill.errors import DataError
from fedistill.features.text_encoders import embed_texts

Tracker = Callable[[list[str]], Iterable[str]]


def embed_file(
    file: Path,
    out: Path,
    *,
    column: str,
    encoder: str,
    force: bool,
    track: Tracker = lambda texts: texts,
) -> tuple[int, int]:
    """Write `file` with the columns `<column>_0`, `<column>_1`, ... in place of `column`.

    Each text is encoded alone, equal ones once; a missing text gives missing values. All other
    columns are written as they are.

    Args:
        file: A `.csv` or `.parquet` file with names for all columns.
        out: Ends in `.csv` or `.parquet`.
        column: Its column of texts.
        encoder: Import path of an encoder of texts; see `embed_texts`.
        force: Whether a file that is there is replaced.
        track: Sees the texts go by.

    Returns:
        Numbers of rows and of embedding columns.

    Raises:
        PolicyRefusal: The encoder cannot be loaded.
        DataError: A file or the column is unfit, the encoder is unfit for a text, or a new column's
            name is taken.
    """
    check_new_file(out, force=force)
    raw = read_file(file.absolute(), ())
    positions, texts = _texts(raw, column).spelled()
    if not texts:
        raise DataError(f"column={column!r} holds no text in {raw.source}: name another column")
    embeddings = embed_texts(track(texts), encoder)
    names = [f"{column}_{number}" for number in range(embeddings.shape[1])]
    taken = sorted({*names} & {*raw.columns})
    if taken:
        raise DataError(
            f"columns {listing(taken)} of {raw.source} have names that the embedding of "
            f"column={column!r} needs: rename them"
        )
    return write_table(_replaced(file, column, names, embeddings, positions), out), len(names)


def _texts(raw: RawColumns, name: str) -> Column:
    if name not in raw.columns:
        raise missing_column("column", name, raw)
    found = raw.columns[name]
    if found.kind is not Kind.CATEGORY:
        raise DataError(
            f"column={name!r} holds values of type {found.stored_as} and must hold texts: numbers, "
            "dates and booleans need no encoder"
        )
    return found


def _replaced(
    file: Path,
    column: str,
    names: list[str],
    embeddings: npt.NDArray[np.float32],
    positions: npt.NDArray[np.int64],
) -> pa.Table:
    table = _stored(file)
    place = [name.strip() for name in table.column_names].index(column)
    table = table.remove_column(place)
    missing = positions < 0
    for number, name in enumerate(names):
        values = pa.array(embeddings[positions, number], mask=missing)
        table = table.add_column(place + number, name, values)
    return table


def _stored(file: Path) -> pa.Table:
    """All columns as they are stored; those of a CSV file are texts."""
    if file.suffix.lower() == ".parquet":
        return pyarrow.parquet.ParquetFile(file).read().replace_schema_metadata()
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header, *rows = (row for row in csv.reader(lines) if row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"FILE={str(file)!r} must be text in UTF-8, with cells of at most "
            f"{csv.field_size_limit()} characters ({error}): save it so, or as Parquet"
        ) from None
    columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
    return pa.table(columns, names=[name.strip() for name in header])
