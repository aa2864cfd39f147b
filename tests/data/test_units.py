"""All rows about one person go the same way."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.data import Column, LabelledRows, Table, load_table, partition_rows, split_table
from fedistill.data.units import Units
from fedistill.errors import DataError
from tests.data.tables import table_of

SITES = ("a", "b", "c")
codes = st.builds(
    lambda some, all_of_them: [*some, *all_of_them],
    st.lists(st.integers(0, 59), max_size=200),
    st.permutations(range(60)),
)


def table(units: list[int] | None, num_rows: int = 0) -> Table:
    """Each row holds its own number; labels alternate."""
    size = len(units) if units else num_rows
    return Table(
        columns={"number": Column.of(np.arange(size))},
        labels=np.arange(size) % 2,
        classes=("even", "odd"),
        name="made",
        units=None if units is None else np.array(units),
    )


def private(units: list[int], values: list[float] | None = None) -> LabelledRows:
    size = len(units)
    rows = np.column_stack([np.arange(size) if values is None else values, np.arange(size)])
    return LabelledRows(
        columns=("value", "number"),
        rows=rows.astype(np.float32),
        labels=np.arange(size) % 3,
        num_classes=3,
        units=np.array(units),
    )


def numbers_of(rows: LabelledRows) -> list[int]:
    return rows.rows[:, -1].astype(int).tolist()


@given(codes)
def test_no_unit_is_in_two_parts_of_a_split(units: list[int]) -> None:
    split = split_table(table(units), proxy_fraction=0.4, test_fraction=0.3)
    proxy = split.proxy.rows[:, 0].astype(int).tolist()
    parts = [proxy, numbers_of(split.test), numbers_of(split.private)]
    of_part = [{units[i] for i in part} for part in parts]
    assert sorted(chain(*parts)) == list(range(len(units)))
    assert not of_part[0] & of_part[1]
    assert not of_part[0] & of_part[2]
    assert not of_part[1] & of_part[2]
    assert len(of_part[0]) == int(0.4 * len(set(units)))
    assert split.private.units is not None
    assert split.private.units.tolist() == [units[i] for i in parts[2]]


@given(st.permutations(range(100)))
def test_units_of_one_row_are_split_as_rows_are(units: list[int]) -> None:
    with_units = split_table(table(units), proxy_fraction=0.2, test_fraction=0.2)
    without = split_table(table(None, num_rows=100), proxy_fraction=0.2, test_fraction=0.2)
    assert with_units.proxy == without.proxy
    assert numbers_of(with_units.private) == numbers_of(without.private)


def test_units_are_ordered_by_their_first_rows() -> None:
    units = Units.of(np.array([7, 3, 7, 9, 3]), 5)
    assert units.first.tolist() == [0, 1, 3]
    assert units.rows(np.array([0, 2])).tolist() == [0, 2, 3]
    assert units.rows(np.array([2, 1])).tolist() == [3, 1, 4]
    assert units.rows(np.array([], dtype=np.intp)).tolist() == []


@given(units=codes, spec=st.sampled_from(["iid", "quantile:value", "dirichlet:0.5"]))
def test_no_unit_is_dealt_to_two_sites(units: list[int], spec: str) -> None:
    parts = partition_rows(private(units), spec, SITES)
    dealt = [numbers_of(part) for part in parts.values()]
    assert sorted(chain(*dealt)) == list(range(len(units)))
    homes = Counter(unit for part in dealt for unit in {units[i] for i in part})
    assert set(homes.values()) == {1}


def test_a_unit_follows_its_first_row() -> None:
    """Unit 5 has the lowest first value, though its second is the highest."""
    parts = partition_rows(private([5, 6, 5, 7], [0, 1, 9, 2]), "quantile:value", SITES)
    assert [numbers_of(part) for part in parts.values()] == [[0, 2], [1], [3]]
    sizes = [
        len(part.rows) for part in partition_rows(private([1, 1, 1, 2, 3]), "iid", SITES).values()
    ]
    assert sorted(sizes) == [1, 1, 3]


def test_more_sites_than_units() -> None:
    with pytest.raises(DataError, match=r"num-sites=3 must be at most .* private units, 2"):
        partition_rows(private([1, 2, 1, 2]), "iid", SITES)


@pytest.mark.parametrize(
    ("people", "codes"),
    [
        (["p1", "p2 ", " p1", "p3"], [0, 1, 0, 2]),
        (["7", "5", "7", "6"], [2, 0, 2, 1]),
        (["true", "false", "true", "false"], [1, 0, 1, 0]),
    ],
)
def test_a_unit_column_is_no_feature(tmp_path: Path, people: list[str], codes: list[int]) -> None:
    lines = [f"{i},{who},{'ab'[i % 2]}" for i, who in enumerate(people)]
    found = table_of(tmp_path / "visits.csv", "x,who,y", *lines, unit_column="who")
    assert tuple(found.columns) == ("x",)
    assert found.units is not None
    assert found.units.tolist() == codes


def test_large_numbers_tell_people_apart(tmp_path: Path) -> None:
    lines = [f"1,{2**53 + i},a" for i in range(3)]
    found = table_of(tmp_path / "visits.csv", "x,who,y", *lines, unit_column="who")
    assert found.units is not None
    assert found.units.tolist() == [0, 1, 2]


def test_npz_keeps_units_as_an_array_of_its_own(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "visits.npz", X=np.ones((3, 2)), y=np.array([0, 1, 0]), who=np.array([9, 8, 9])
    )
    found = load_table(str(tmp_path / "visits.npz"), unit_column="who")
    assert found.units is not None
    assert found.units.tolist() == [1, 0, 1]


def test_every_row_must_have_a_unit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unit-column='who' is missing .* in 1 of 2 rows"):
        table_of(tmp_path / "visits.csv", "x,who,y", "1,p1,a", "2,?,b", unit_column="who")


def test_units_at_two_sites_are_counted(tmp_path: Path) -> None:
    lines = ["1,p1,n,a", "2,p1,s,b", "3,p2,s,a", "4,p3,n,a", "5,p3,n,a"]
    roles = {"unit_column": "who", "site_column": "where"}
    with pytest.raises(DataError, match=r"unit-column='who' has 1 of 3 units with rows at more"):
        table_of(tmp_path / "visits.csv", "x,who,where,y", *lines, **roles)
    kept = [line for line in lines if "p1" not in line]
    found = table_of(tmp_path / "visits.csv", "x,who,where,y", *kept, **roles)
    assert found.site == ("s", "n", "n")
