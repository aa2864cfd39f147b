"""Tables as people have them, from the file to the rows that a site registers."""

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fedistill.data import (
    Kind,
    Split,
    code_table,
    load_table,
    misfits_in_words,
    partition_rows,
    register_rows,
    split_table,
)
from fedistill.errors import DataError
from tests.data.tables import rows_of, schema_of, table_of, write_csv

NUM_ROWS = 200
ORDER = np.random.default_rng(0).permutation(NUM_ROWS)
PROXY, TEST, PRIVATE = ORDER[0], ORDER[60], ORDER[150:154]
"""A proxy row, a test row and four private rows of the fixed split below."""

HEADER = "age,smoker,city,admitted,note,outcome"


def patient(i: int, **changes: str) -> str:
    """Row `i`, with a missing value of each kind here and there."""
    row = {
        "age": "?" if i % 11 == 0 else f"{20 + i % 60}",
        "smoker": "" if i % 13 == 0 else ("true", "False")[i % 2],
        "city": "NA" if i % 17 == 0 else (" Ulm", "Bonn", "Kiel")[i % 3],
        "admitted": f"2021-0{1 + i % 9}-15",
        "note": "",
        "outcome": ("healed", "ill")[i % 5 == 0],
    }
    return ",".join((row | changes).values())


def split(path: Path, changes: dict[int, dict[str, str]]) -> Split:
    lines = [patient(i, **changes.get(i, {})) for i in range(NUM_ROWS)]
    table = load_table(str(write_csv(path, HEADER, *lines)), label_column="outcome")
    return split_table(table, proxy_fraction=0.3, test_fraction=0.3)


@pytest.fixture
def clean(tmp_path: Path) -> Split:
    return split(tmp_path / "patients.csv", {})


def test_a_csv_of_all_kinds_gets_its_schema_from_the_proxy_rows(clean: Split) -> None:
    kinds = {column.name: column.kind for column in clean.proxy.schema}
    assert kinds == {
        "age": Kind.NUMBER,
        "smoker": Kind.BOOLEAN,
        "city": Kind.CATEGORY,
        "admitted": Kind.DATE,
        "note": Kind.EMPTY,
    }
    assert clean.proxy.schema[2].categories == ("Bonn", "Kiel", "Ulm")
    day = (date(2021, 1 + int(PROXY) % 9, 15) - date(1970, 1, 1)).days
    assert clean.proxy.rows[0, 3] == day
    assert np.isnan(clean.private.rows[:, 4]).all()
    assert 0 < np.isnan(clean.private.rows[:, :3]).mean() < 0.2
    assert misfits_in_words(clean.private) == ""


def test_junk_in_private_rows_makes_misfits_of_these_rows_alone(
    tmp_path: Path, clean: Split
) -> None:
    first, second, third, fourth = (int(i) for i in PRIVATE)
    found = split(
        tmp_path / "junk.csv",
        {
            first: {"city": "Rome"},
            second: {"age": "old"},
            third: {"admitted": "soon", "smoker": "yes"},
            fourth: {"outcome": "?", "note": "anything fits"},
        },
    )
    assert found.proxy == clean.proxy
    assert np.array_equal(found.test.rows, clean.test.rows, equal_nan=True)
    fits = np.ones(len(found.private.rows), dtype=bool)
    fits[30:34] = False
    assert np.array_equal(found.private.rows[fits], clean.private.rows[fits], equal_nan=True)
    assert np.array_equal(found.private.labels[fits], clean.private.labels[fits])
    assert found.private.labels[~fits].tolist() == [-1] * 4
    assert found.private.misfit is not None
    assert found.private.misfit[~fits].tolist() == [
        "column 'city' holds 'Rome'",
        "column 'age' holds 'old'",
        "column 'smoker' holds 'yes'",
        "label is missing",
    ]
    registered = register_rows(found.private, found.proxy, num_classes=2, rows_at_least=76)
    assert len(registered.rows) == 76


def test_junk_in_test_rows_is_missing_and_rows_without_label_are_left_out(
    tmp_path: Path, clean: Split
) -> None:
    place = int(np.flatnonzero(ORDER == TEST)[0]) - 60
    found = split(tmp_path / "junk.csv", {int(TEST): {"city": "Rome"}})
    assert np.isnan(found.test.rows[place, 2])
    assert found.test.labels[place] == clean.test.labels[place]
    found = split(tmp_path / "junk.csv", {int(TEST): {"outcome": ""}})
    assert len(found.test.rows) == len(clean.test.rows) - 1
    assert np.array_equal(found.test.rows[place:], clean.test.rows[place + 1 :], equal_nan=True)


def test_junk_in_proxy_rows_is_public_and_changes_the_schema(tmp_path: Path) -> None:
    found = split(tmp_path / "junk.csv", {int(PROXY): {"smoker": "sometimes"}})
    assert found.proxy.schema[1].categories == ("false", "sometimes", "true")
    assert misfits_in_words(found.private) == ""


def test_infinite_proxy_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'age' holds inf in 1 proxy rows"):
        split(tmp_path / "junk.csv", {int(PROXY): {"age": "inf"}})


def test_a_site_codes_its_own_file_against_a_published_proxy_set(
    tmp_path: Path, clean: Split
) -> None:
    """Its file has other types, another order and a label that only it has."""
    own = tmp_path / "own.parquet"
    columns = {
        "outcome": ["ill", "healed", "dead"],
        "note": [1, 2, 3],
        "admitted": pa.array([datetime(2021, 5, 1, 12)] * 3, pa.timestamp("ns")),
        "city": pa.array(["Ulm", "Rome", "Ulm"]).dictionary_encode(),
        "smoker": [1, 0, None],
        "age": ["61", "62", "63"],
    }
    pyarrow.parquet.write_table(pa.table(columns), own)
    table = load_table(str(own), label_column="outcome", classes=("healed", "ill"))
    rows = code_table(table, clean.proxy.schema)
    assert np.array_equal(rows.rows[0, :4], np.array([61, 1, 2, 18_748.5], np.float32))
    assert misfits_in_words(rows) == (
        "2 of 3 rows do not fit the proxy set's schema and count as nothing: column 'city' holds "
        "'Rome' (1 row), column 'outcome' holds 'dead', which is no class (1 row)"
    )
    registered = register_rows(rows, clean.proxy, num_classes=2, rows_at_least=1)
    assert registered.labels.tolist() == [1]


def test_parquet_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "kinds.parquet"
    columns = {
        "city": pa.array(["u", None, "v"]).dictionary_encode(),
        "large": pa.array(["u", "?", "v"], pa.large_string()),
        "date32": pa.array([date(1970, 1, 2), None, date(1969, 12, 31)], pa.date32()),
        "date64": pa.array([date(1970, 1, 2), None, date(1969, 12, 31)], pa.date64()),
        "seconds": pa.array([86_400, None, 43_200], pa.timestamp("s")),
        "nanoseconds": pa.array([86_400 * 10**9, None, 0], pa.timestamp("ns", "Europe/Berlin")),
        "flag": [True, None, False],
        "nothing": pa.nulls(3),
        "y": ["a", "b", "a"],
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    table = load_table(str(path), label_column="y")
    kinds = {column.name: str(column.kind) for column in schema_of(table)}
    assert kinds == {
        **dict.fromkeys(("city", "large"), "category"),
        **dict.fromkeys(("date32", "date64", "seconds", "nanoseconds"), "date"),
        "flag": "boolean",
        "nothing": "empty",
    }
    expected = [
        [0, 0, 1, 1, 1, 1, 1, np.nan],
        [np.nan] * 8,
        [1, 1, -1, -1, 0.5, 0, 0, np.nan],
    ]
    assert np.array_equal(rows_of(table), np.array(expected, np.float32), equal_nan=True)


def test_csv_and_parquet_of_one_table_are_coded_alike(tmp_path: Path) -> None:
    of_csv = table_of(
        tmp_path / "table.csv",
        "flag,day,time,mixed,y",
        "true,2020-01-31,2020-01-31T10:00:00,3,a",
        "false,,2020-01-31 11:30:00,true,b",
        ",2020-02-01,,Ulm,b",
    )
    columns = {
        "flag": [True, False, None],
        "day": [date(2020, 1, 31), None, date(2020, 2, 1)],
        "time": [datetime(2020, 1, 31, 10), datetime(2020, 1, 31, 11, 30), None],
        "mixed": ["3.0", "True", "Ulm"],
        "y": ["a", "b", "b"],
    }
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    of_parquet = load_table(str(path), label_column="y")
    assert schema_of(of_csv) == schema_of(of_parquet)
    assert np.array_equal(rows_of(of_csv), rows_of(of_parquet), equal_nan=True)


def test_a_schema_of_every_kind_survives_dealing_and_registration(clean: Split) -> None:
    parts = partition_rows(clean.private, "quantile:admitted", ("a", "b"))
    sites = [
        register_rows(part, clean.proxy, num_classes=2, rows_at_least=40) for part in parts.values()
    ]
    assert sites[0].rows[:, 3].max() <= sites[1].rows[:, 3].min()


def test_a_column_of_free_text_is_named_when_it_makes_most_rows_misfits(tmp_path: Path) -> None:
    lines = [f"note {i % 90 if i < 200 else i},{i % 7},{i % 2}" for i in range(2_000)]
    order = np.random.default_rng(0).permutation(2_000)
    placed = [""] * 2_000
    for place, line in zip(order, lines, strict=True):
        placed[place] = line
    path = write_csv(tmp_path / "notes.csv", "note,x,y", *placed)
    table = load_table(str(path), label_column="y")
    with pytest.raises(DataError, match=r"column 'note' holds .* ignore-columns"):
        split_table(table, proxy_fraction=0.05, test_fraction=0.15)
