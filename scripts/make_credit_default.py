"""Make the shipped `credit_default.parquet` from an npz file of the UCI credit data.

    python scripts/make_credit_default.py /path/to/uci_credit.npz

The npz file holds `X` (30000, 32) float32, `y` (30000,) integers and `features` (32,) names, made
from the original spreadsheet as `credit_default.LICENSE.txt` states. Each column gets the smallest
integer type that holds it exactly, else float32.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

LABEL = "default_next_month"
FEW_VALUES = 256
SETS = Path(__file__).resolve().parent.parent / "fedistill" / "data" / "sets"


def main() -> None:
    """Write the Parquet file, read it back and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("npz", type=Path)
    parser.add_argument("--output", type=Path, default=SETS / "credit_default.parquet")
    arguments = parser.parse_args()
    with np.load(arguments.npz, allow_pickle=False) as arrays:
        rows, labels = arrays["X"], arrays["y"]
        names = [str(name) for name in arrays["features"]]
    table = pa.table(
        [smallest_type(rows[:, j]) for j in range(rows.shape[1])] + [smallest_type(labels)],
        names=[*names, LABEL],
    )
    # A dictionary of thousands of amounts is larger than the amounts.
    few = [name for name in table.column_names if len(table[name].unique()) <= FEW_VALUES]
    pa.parquet.write_table(
        table,
        arguments.output,
        compression="zstd",
        compression_level=19,
        use_dictionary=few,
        store_schema=False,
    )
    check(arguments.output, names, rows, labels)
    digest = hashlib.sha256(arguments.output.read_bytes()).hexdigest()
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {table.num_rows} rows, {size} bytes, sha256 {digest}")


def smallest_type(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The same values in the smallest of int8, int16, int32 and float32 that holds them all."""
    for kind in (np.int8, np.int16, np.int32):
        bounds = np.iinfo(kind)
        # A negated zero would lose its sign as an integer.
        if (
            np.array_equal(values, np.trunc(values))
            and bounds.min <= float(values.min()) <= float(values.max()) <= bounds.max
            and not np.signbit(values[values == 0]).any()
        ):
            return values.astype(kind)
    return values.astype(np.float32)


def check(
    path: Path, names: list[str], rows: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> None:
    """Read the file back.

    Raises:
        ValueError: A name, a value or a label differs from what was given.
    """
    table = pa.parquet.ParquetFile(path).read()
    columns = [column.to_numpy() for column in table.columns]
    again = np.stack([column.astype(np.float32) for column in columns[:-1]], axis=1)
    if table.column_names != [*names, LABEL]:
        raise ValueError(f"{path}: column names differ from the npz file's")
    if again.tobytes() != np.ascontiguousarray(rows, dtype=np.float32).tobytes():
        raise ValueError(f"{path}: values differ from the npz file's")
    if not np.array_equal(columns[-1], labels):
        raise ValueError(f"{path}: labels differ from the npz file's")


if __name__ == "__main__":
    main()
