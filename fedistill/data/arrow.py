"""CSV and Parquet files as columns, through Arrow and without pandas.

Arrow's `to_numpy`, `scalar` and `array` import pandas wherever it is installed, which costs each
process some 75 MB: none of them is used here.
"""

from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fedistill.data.columns import Column

_NAN = pa.Array.from_buffers(pa.float64(), 1, [None, pa.py_buffer(np.float64("nan").tobytes())])[0]


def read_csv(file: IO[bytes]) -> list[tuple[str, Column]]:
    """Names and columns of an open CSV file; the first line is the header."""
    return _columns(pa.csv.read_csv(file))


def read_parquet(file: IO[bytes]) -> list[tuple[str, Column]]:
    """Names and columns of an open Parquet file."""
    return _columns(pa.parquet.ParquetFile(file).read())


def _columns(table: pa.Table) -> list[tuple[str, Column]]:
    return [
        (name, Column(values=_values(column), kind=str(column.type)))
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]


def _values(column: pa.ChunkedArray) -> npt.NDArray[np.generic] | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.cast(kind.value_type))
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        numbers = _numbers(column.cast(pa.int8()))
        return numbers if column.null_count else numbers.astype(np.bool_)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return np.array([value or "" for value in column.to_pylist()], dtype=np.str_)
    return None


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A numeric column with NaN where it is null."""
    floats = column.cast(pa.float64(), safe=False).fill_null(_NAN)
    return np.concatenate([np.empty(0), *(np.from_dlpack(chunk) for chunk in floats.chunks)])
