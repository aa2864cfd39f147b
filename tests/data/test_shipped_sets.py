import hashlib
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest

from fedistill.data import SHIPPED, ShippedSet, Table, load_table
from fedistill.data.table import Rows

# Of the float32 rows and int64 labels that the published tables of this project were measured on.
CREDIT_ROWS = "bea6c9d83bdbe5e543d095b9669cdd65919a67a34a29ec6f276aaa9fdba95f7e"
CREDIT_LABELS = "9e02d06ecd9dd04e7f06877550c976d3aa219331b09998c55a8ff6039a3ee342"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_set_loads_and_names_its_licence(name: str) -> None:
    table = load_table(name)
    assert table.name == name
    assert SHIPPED[name].label_column not in table.columns
    assert len(table.classes) == table.labels.max() + 1
    assert "licence" in SHIPPED[name].licence.read_text(encoding="utf-8")


def test_credit_default_holds_the_published_values_exactly(
    credit: Table, credit_rows: Rows
) -> None:
    assert hashlib.sha256(credit_rows.tobytes()).hexdigest() == CREDIT_ROWS
    assert hashlib.sha256(credit.labels.tobytes()).hexdigest() == CREDIT_LABELS


def test_credit_default_has_the_counts_of_its_source(credit: Table, credit_rows: Rows) -> None:
    sums = dict(zip(credit.columns, credit_rows.sum(axis=0, dtype=np.float64), strict=True))
    assert credit_rows.shape == (30_000, 32)
    assert credit.classes == ("no default", "default")
    assert np.bincount(credit.labels).tolist() == [23_364, 6_636]
    assert sums["SEX"] == 18_112  # women
    assert [sums[f"EDUCATION_{k}"] for k in range(7)] == [14, 10_585, 14_030, 4_917, 123, 280, 51]
    assert [sums[f"MARRIAGE_{k}"] for k in range(4)] == [54, 13_659, 15_964, 323]
    assert next(iter(credit.columns)) == "LIMIT_BAL"


def test_the_site_column_of_a_shipped_set_is_never_a_feature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = ShippedSet(
        file="credit_default.parquet", label_column="default_next_month", site_column="SEX"
    )
    monkeypatch.setattr("fedistill.data.loaders.SHIPPED", {"by_sex": entry})
    dealt = load_table("by_sex")
    assert "SEX" not in dealt.columns
    assert dealt.site is None
    assert dealt.classes == ("0", "1")
    grouped = load_table("by_sex", site_column="SEX")
    assert tuple(grouped.columns) == tuple(dealt.columns)
    assert grouped.site is not None
    assert grouped.site.count("1") == 18_112


def test_credit_default_licence_attributes_and_states_the_changes() -> None:
    text = SHIPPED["credit_default"].licence.read_text(encoding="utf-8")
    for part in ("I-Cheng", "10.24432/C55S3H", "creativecommons.org/licenses/by/4.0", "one-hot"):
        assert part in text


def test_credit_default_uses_small_integers_and_zstd() -> None:
    with SHIPPED["credit_default"].path.open("rb") as file:
        stored = pyarrow.parquet.ParquetFile(file)
        types = {str(field.type) for field in stored.schema_arrow}
        label = stored.schema_arrow.field("default_next_month")
        compression = stored.metadata.row_group(0).column(0).compression
    assert types == {"int8", "int32"}
    assert str(label.type) == "int8"
    assert compression == "ZSTD"


def test_reading_imports_no_heavy_package() -> None:
    """Every process of a run loads its data: what it imports is paid for many times."""
    program = (
        "import sys, fedistill.data as data; data.load_table('credit_default');"
        "heavy = ('pandas', 'sklearn', 'torch', 'flwr', 'onnx', 'scipy', 'dp_accounting');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
