"""CSV and Parquet files as columns, through Arrow and without pandas.

Arrow's `to_numpy`, `scalar` and `array` import pandas wherever it is installed, which costs each
process some 75 MB: none of them is used here.
"""

from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fedistill.data.columns import Column
from fedistill.data.schema import Kind
from fedistill.data.texts import MISSING
from fedistill.data.wording import repeated

_NAN = pa.Array.from_buffers(pa.float64(), 1, [None, pa.py_buffer(np.float64("nan").tobytes())])[0]
_UNITS_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def read_csv(file: IO[bytes]) -> list[tuple[str, Column]]:
    """Names and columns of an open CSV file; the first line is the header.

    Columns are numbers where all their values are, else text. Arrow also guesses booleans, dates
    and times, but what it guesses depends on all rows, and the meaning of a row's value must not:
    these columns are read again as they are written.
    """
    table = _csv(file)
    guessed = [field.name for field in table.schema if not _is_plain(field.type)]
    if guessed and not repeated(table.column_names):
        file.seek(0)
        again = _csv(file, column_types=dict.fromkeys(guessed, pa.string()))
        return _columns(again)
    return _columns(table)


def read_parquet(file: IO[bytes]) -> list[tuple[str, Column]]:
    """Names and columns of an open Parquet file."""
    return _columns(pa.parquet.ParquetFile(file).read())


def _csv(file: IO[bytes], **options: Any) -> pa.Table:
    convert = pa.csv.ConvertOptions(null_values=MISSING, strings_can_be_null=True, **options)
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    return pa.csv.read_csv(file, parse_options=parse, convert_options=convert)


def _is_plain(kind: pa.DataType) -> bool:
    return kind in (pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.null())


def _columns(table: pa.Table) -> list[tuple[str, Column]]:
    return [
        (name.strip(), _column(column))
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]


def _column(column: pa.ChunkedArray) -> Column:
    kind, stored_as = column.type, str(column.type)
    if pa.types.is_dictionary(kind):
        return _column(column.cast(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _text(column, stored_as)
    if pa.types.is_boolean(kind):
        values = _floats(column.cast(pa.int8()))
        return Column(kind=Kind.BOOLEAN, values=values, stored_as=stored_as)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Column(kind=Kind.DATE, values=_days(column), stored_as=stored_as)
    if pa.types.is_null(kind):
        missing = np.full(len(column), np.nan)
        return Column(kind=Kind.NUMBER, values=missing, stored_as=stored_as)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Column(kind=Kind.NUMBER, values=_numbers(column), stored_as=stored_as)
    return Column(kind=None, values=np.full(len(column), np.nan), stored_as=stored_as)


def _text(column: pa.ChunkedArray, stored_as: str) -> Column:
    encoded = column.cast(pa.large_string()).dictionary_encode("encode")
    if not encoded.num_chunks:
        return Column.of_text(np.empty(0, dtype=np.intp), [], stored_as)
    positions = np.concatenate([np.from_dlpack(chunk.indices) for chunk in encoded.chunks])
    # All chunks share one dictionary, and the last one holds it whole.
    return Column.of_text(positions, encoded.chunks[-1].dictionary.to_pylist(), stored_as)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """int64 where that keeps each value exactly, else float64 with NaN where it is null."""
    if not pa.types.is_integer(column.type) or column.null_count or column.type == pa.uint64():
        return _floats(column)
    chunks = column.cast(pa.int64()).chunks
    return np.concatenate([np.empty(0, np.int64), *(np.from_dlpack(chunk) for chunk in chunks)])


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A numeric column with NaN where it is null."""
    floats = column.cast(pa.float64(), safe=False).fill_null(_NAN)
    return np.concatenate([np.empty(0), *(np.from_dlpack(chunk) for chunk in floats.chunks)])


def _days(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Dates or times as days since 1970-01-01, NaN where null; times with a zone are UTC."""
    kind = column.type
    if pa.types.is_date32(kind):
        return _floats(column.cast(pa.int32()))
    unit = "ms" if pa.types.is_date64(kind) else kind.unit
    return _floats(column.cast(pa.int64())) / _UNITS_A_DAY[unit]
