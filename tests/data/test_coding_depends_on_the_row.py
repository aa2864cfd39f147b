"""A row's coding depends on that row and the public schema: not on rows that a file also holds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import ColumnSchema, Kind, LabelledRows, code_table
from tests.data.tables import table_of

SCHEMA = (
    ColumnSchema(name="number", kind=Kind.NUMBER),
    ColumnSchema(name="flag", kind=Kind.BOOLEAN),
    ColumnSchema(name="day", kind=Kind.DATE),
    ColumnSchema(name="code", kind=Kind.CATEGORY, categories=("0", "1", "31", "Ulm", "true")),
)
CELLS = [
    *("", "?", "NA", "nan", "NAN", "+nan", "-nan(ind)", " ", " nan ", "null"),
    *("0", "1", "-0", "01", " 1 ", "1.0", "1e0", "+1", "0x1F", "31", "0xFFFFFFFFFFFFFFFF"),
    *("0.1", "9007199254740993", "99999999999999999999", "1e39", "1e400", "inf", "-Infinity"),
    *("true", "TRUE", "False", "yes", "1_0", "1d3", "\u0661", "--5", "12:30", "12:30:05"),
    *("2020-01-31", "2020-01-31 10:00", "2020-01-31T10:00:00.5Z", "2020-02-30", "20200131"),
    *("Ulm", " Ulm ", "ulm", "Köln", "-"),
]
cells = st.sampled_from(CELLS) | st.from_regex(r"[0-9.eExX+\- ]{1,6}", fullmatch=True)
lines = st.tuples(cells, cells, cells, cells, st.sampled_from(["a", "b", "A", "1", "?", " a"]))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "rows.csv"


def code(path: Path, rows: list[tuple[str, ...]]) -> LabelledRows:
    text = (",".join(row) for row in rows)
    return code_table(table_of(path, "number,flag,day,code,y", *text), SCHEMA)


def same(first: LabelledRows, second: LabelledRows) -> bool:
    assert first.misfit is not None
    assert second.misfit is not None
    return (
        np.array_equal(first.rows, second.rows, equal_nan=True)
        and np.array_equal(first.labels, second.labels)
        and first.misfit.tolist() == second.misfit.tolist()
    )


@settings(max_examples=150)
@given(rows=st.lists(lines, min_size=1, max_size=8), data=st.data())
def test_dropping_other_rows_changes_nothing(
    path: Path, rows: list[tuple[str, ...]], data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True), label="kept")
    together = code(path, rows).take(np.array(kept))
    assert same(code(path, [rows[i] for i in kept]), together)


@pytest.mark.parametrize("cell", CELLS)
def test_a_value_alone_is_coded_as_beside_junk(path: Path, cell: str) -> None:
    row = (cell, cell, cell, cell, "a")
    junk = ("junk", "junk", "junk", "junk", "b")
    alone = code(path, [row])
    assert same(alone, code(path, [row, junk]).take(np.array([0])))


@given(rows=st.lists(lines, min_size=1, max_size=8))
def test_coding_twice_gives_the_same(path: Path, rows: list[tuple[str, ...]]) -> None:
    assert same(code(path, rows), code(path, rows))
