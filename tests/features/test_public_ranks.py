import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import ColumnSchema, Kind, ProxySet, numbers
from fedistill.features.public_ranks import PublicRanks

VALUES = st.one_of(st.just(np.nan), st.floats(width=32))


def proxy_of(rows: list[list[float]]) -> ProxySet:
    names = tuple(f"c{number}" for number in range(len(rows[0])))
    return ProxySet(schema=numbers(names), rows=np.array(rows, np.float32))


PROXY = proxy_of([[1, 5, np.nan], [2, 5, np.nan], [2, np.nan, np.nan], [4, 6, np.nan]])


def test_a_value_becomes_the_share_of_proxy_rows_below_it() -> None:
    ranks = PublicRanks.of(PROXY).transform(np.array([[2, 5.5, 7], [0, 9, np.nan]], np.float32))
    np.testing.assert_allclose(ranks[:, 0], [0.5, 0.0])
    np.testing.assert_allclose(ranks[:, 1], [2 / 3, 1.0])


def test_missing_values_are_flagged_where_the_proxy_set_has_both() -> None:
    ranks = PublicRanks.of(PROXY)
    assert ranks.num_columns == 4
    rows = ranks.transform(np.array([[np.nan, np.nan, np.nan], [1, 5, 1]], np.float32))
    np.testing.assert_array_equal(rows[:, :2], [[0.5, 0.5], [1 / 8, 1 / 3]])
    np.testing.assert_array_equal(rows[:, 3], [1, 0])


def test_categories_become_0_1_columns() -> None:
    column = ColumnSchema(name="ward", kind=Kind.CATEGORY, categories=("a", "b", "c"))
    proxy = ProxySet(schema=(column,), rows=np.array([[0], [1], [2], [2]], np.float32))
    assert PublicRanks.of(proxy).transform(proxy.rows).shape == (4, 3)


@settings(deadline=None)
@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=8))
def test_any_row_lies_within_0_and_1_and_depends_on_itself_alone(rows) -> None:
    ranks, raw = PublicRanks.of(PROXY), np.array(rows, np.float32)
    whole = ranks.transform(raw)
    assert ((whole >= 0) & (whole <= 1)).all()
    np.testing.assert_array_equal(whole[-1:], ranks.transform(raw[-1:]))
