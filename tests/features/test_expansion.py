import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.data.schema import ColumnSchema, Kind, numbers
from fedistill.features import Expansion

SCHEMA = (
    ColumnSchema(name="age"),
    ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Bonn", "Köln", "Ulm")),
    ColumnSchema(name="sex", kind=Kind.CATEGORY, categories=("f", "m")),
    ColumnSchema(name="born", kind=Kind.DATE),
    ColumnSchema(name="one", kind=Kind.CATEGORY, categories=("only",)),
    ColumnSchema(name="none", kind=Kind.CATEGORY),
    ColumnSchema(name="ill", kind=Kind.BOOLEAN),
    ColumnSchema(name="empty", kind=Kind.EMPTY),
)

CELLS = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 1e30, np.inf, -np.inf, np.nan])


def by_hand(row: np.ndarray) -> list[float]:
    """The expansion of one row of `SCHEMA`, cell by cell."""
    age, city, sex, *others = row
    cities = [np.nan if np.isnan(city) else float(city == code) for code in (0, 1, 2)]
    return [age, *cities, np.nan if np.isnan(sex) else float(sex == 1), *others]


@given(st.lists(st.lists(CELLS, min_size=8, max_size=8), max_size=6))
def test_categories_become_indicators_and_other_columns_stay(cells) -> None:
    rows = np.array(cells, dtype=np.float32).reshape(-1, 8)
    expanded = Expansion.of(SCHEMA).transform(rows)
    assert expanded.dtype == np.float32
    assert expanded.flags.c_contiguous
    expected = np.array([by_hand(row) for row in rows], dtype=np.float32).reshape(-1, 10)
    np.testing.assert_array_equal(expanded, expected)


def test_each_expanded_column_names_its_source_and_code() -> None:
    expansion = Expansion.of(SCHEMA)
    assert expansion.source.tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(expansion.code, [np.nan, 0, 1, 2, 1] + [np.nan] * 5)


@pytest.mark.parametrize(
    ("schema", "identity"), [(numbers("ab"), True), (SCHEMA[3:], True), (SCHEMA[2:3], False)]
)
def test_it_is_the_identity_where_no_category_varies(schema, identity: bool) -> None:
    assert Expansion.of(schema).is_identity is identity
