import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet
import pytest

from fedistill.data import SHIPPED, Table
from fedistill.data.table import Rows

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_credit_default.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_credit_default", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_makes_the_shipped_values_from_an_npz_file(
    tmp_path: Path, credit: Table, credit_rows: Rows
) -> None:
    source, made = tmp_path / "credit.npz", tmp_path / "made.parquet"
    np.savez(source, X=credit_rows, y=credit.labels, features=np.array(list(credit.columns)))
    subprocess.run([sys.executable, SCRIPT, source, "--output", made], check=True, timeout=120)
    with SHIPPED["credit_default"].path.open("rb") as file:
        shipped = pyarrow.parquet.ParquetFile(file).read()
    assert pyarrow.parquet.ParquetFile(made).read().equals(shipped)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1], np.int8),
        ([-129, 0], np.int16),
        ([0, 40_000], np.int32),
        ([0.5, 1], np.float32),
        ([np.nan, 1], np.float32),
        ([-0.0, 1], np.float32),
        ([2**31, 0], np.float32),
    ],
)
def test_a_column_gets_the_smallest_type_that_holds_it(
    script: ModuleType, values: list[float], expected: type
) -> None:
    column = np.array(values, dtype=np.float32)
    stored = script.smallest_type(column)
    assert stored.dtype == expected
    assert stored.astype(np.float32).tobytes() == column.tobytes()
