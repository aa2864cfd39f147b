import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import ProxySet, numbers
from fedistill.data.schema import ColumnSchema, Kind
from fedistill.distill.encoding import TabularEncoding
from fedistill.errors import DataError

FINITE_OR_NAN = st.floats(width=32, allow_infinity=False)

CITY = ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Bonn", "Köln", "Ulm"))
SEX = ColumnSchema(name="sex", kind=Kind.CATEGORY, categories=("f", "m"))


def encode(encoding: TabularEncoding, rows: np.ndarray) -> np.ndarray:
    return encoding(torch.tensor(np.asarray(rows, dtype=np.float32))).numpy()


def fit(rows: np.ndarray) -> TabularEncoding:
    """The encoding of a table of numbers."""
    rows = np.asarray(rows, dtype=np.float32)
    return TabularEncoding.fit(
        ProxySet(schema=numbers(f"x{j}" for j in range(rows.shape[1])), rows=rows)
    )


def piecewise_linear(value: float, edges: np.ndarray) -> list[float]:
    """Equation 1 of Gorishniy et al. 2022, case by case, both outer bins clipped."""
    codes = []
    for low, high in pairwise(edges):
        if value < low:
            codes.append(0.0)
        elif value >= high:
            codes.append(1.0)
        else:
            codes.append((value - low) / (high - low))
    return codes


def test_a_continuous_column_is_its_piecewise_linear_code_and_its_clipped_z_score():
    column = np.random.default_rng(0).gamma(1.0, 5.0, 401).astype(np.float32)
    values = column.astype(np.float64)
    edges = np.sort(values)[::25]  # the 8 quantiles of the distinct values are among these 17
    z = np.clip((values - values.mean()) / values.std() / 4, -1, 1)
    expected = [[*piecewise_linear(v, edges), z_v] for v, z_v in zip(values, z, strict=True)]

    encoding = fit(column[:, None])

    np.testing.assert_allclose(encode(encoding, column[:, None]), expected, atol=2e-5)


def test_distinct_values_give_edges_where_row_quantiles_collapse(rows):
    spike = rows[:, 7:8]
    assert np.quantile(spike, 15 / 16) == 0
    codes = encode(fit(spike), [[0.0], [50.0], [spike.max()]])
    assert len(np.unique(codes, axis=0)) == 3
    assert codes.shape[1] >= 8


def test_a_column_of_few_values_has_one_code_for_each_gap():
    column = np.float32([0] * 80 + [1] * 15 + [2] * 4 + [7])[:, None]
    encoding = fit(column)
    assert encoding.bin_start.tolist() == [0, 1, 2]
    np.testing.assert_allclose(encode(encoding, [[4.5]])[0, :3], [1, 1, 0.5])


def test_heavy_tails_are_resolved_at_every_magnitude(rows):
    heavy = rows[:, 1:2]
    some = np.quantile(heavy, [0.1, 0.3, 0.5, 0.7, 0.9])[:, None]
    codes = encode(fit(heavy), some)
    assert len(np.unique(codes.round(3), axis=0)) == 5


def test_a_binary_column_has_one_code_and_no_z_score():
    encoding = fit(np.float32([[0], [1], [1], [0], [1]]))
    assert encoding.width == 1
    assert encode(encoding, [[0], [1], [0.25]]).ravel().tolist() == [0, 1, 0.25]


def test_constant_and_empty_columns_are_dropped(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoding = fit(rows)
    used = {*encoding.bin_column.tolist(), *encoding.z_column.tolist()}
    assert used == {0, 1, 2, 5, 6, 7}
    assert encoding.flag_column.tolist() == [5]


def test_columns_missing_together_share_a_flag(rows):
    encoding = fit(rows[:, 5:7])
    flags = encode(encoding, rows[:, 5:7])[:, -1]
    assert encoding.flag_column.tolist() == [0]
    np.testing.assert_array_equal(flags, np.isnan(rows[:, 5]))


def test_a_flagged_missing_value_codes_as_zeros(rows):
    codes = encode(fit(rows[:, 5:6]), [[np.nan]])[0]
    assert codes[-1] == 1
    np.testing.assert_array_equal(codes[:-1], 0)


def test_a_missing_value_no_proxy_row_foretold_codes_as_the_median(rows):
    normal = rows[:, 0:1]
    encoding = fit(normal)
    np.testing.assert_allclose(
        encode(encoding, [[np.nan]]), encode(encoding, [[np.median(normal)]]), atol=1e-6
    )


def test_infinite_values_saturate():
    encoding = fit([[0], [1], [2], [3]])
    np.testing.assert_array_equal(encode(encoding, [[np.inf]]), np.ones((1, encoding.width)))
    assert encode(encoding, [[-np.inf]]).min() == -1


def test_values_closer_than_float32_resolves_do_not_become_edges():
    column = np.float32([[1e9], [1e9 + 64], [1e9 + 128], [5e9]])
    encoding = fit(column)
    assert encoding.bin_scale.max() < 1 / 64


def test_a_table_without_any_variation_is_refused():
    with pytest.raises(DataError, match="none of 2 columns"):
        fit(np.float32([[1, np.nan], [1, np.nan]]))


@given(
    proxy=st.lists(st.lists(FINITE_OR_NAN, min_size=3, max_size=3), min_size=2, max_size=30),
    row=st.lists(st.floats(width=32), min_size=3, max_size=3),
)
def test_codes_are_finite_and_bounded_for_any_row(proxy, row):
    try:
        encoding = fit(np.float32(proxy))
    except DataError:
        return
    codes = encode(encoding, np.float32([*proxy, row]))
    assert np.isfinite(codes).all()
    assert np.abs(codes).max() <= 1


def test_the_fit_depends_on_the_set_of_rows_not_on_their_order(rows):
    shuffled = rows[np.random.default_rng(1).permutation(len(rows))]
    one, other = fit(rows), fit(shuffled)
    for name, buffer in one.state_dict().items():
        torch.testing.assert_close(buffer, other.state_dict()[name], rtol=1e-5, atol=1e-5)


def mixed_proxy() -> ProxySet:
    """A number, a city that is sometimes missing, another number and a sex."""
    random = np.random.default_rng(2)
    rows = np.stack(
        [
            random.normal(size=300),
            random.choice([0, 1, 2, np.nan], size=300),
            random.exponential(size=300),
            random.integers(0, 2, 300),
        ],
        axis=1,
    ).astype(np.float32)
    first, second = numbers(("age", "income"))
    return ProxySet(schema=(first, CITY, second, SEX), rows=rows)


@pytest.fixture
def mixed() -> ProxySet:
    return mixed_proxy()


def odd_rows(proxy: ProxySet) -> np.ndarray:
    """Rows with missing cells, codes that the schema lacks, and infinities."""
    rows = np.repeat(proxy.rows[:1], 8, axis=0)
    rows[0] = np.nan
    rows[1, 1] = np.nan
    rows[2:5, 1] = [3, -1, 0.5]
    rows[5, 3] = 9
    rows[6], rows[7] = np.inf, -np.inf
    return rows


def test_a_category_is_encoded_as_its_indicator_columns_are(mixed):
    def by_hand(rows: np.ndarray) -> np.ndarray:
        city = np.where(np.isnan(rows[:, [1]]), np.nan, rows[:, [1]] == np.arange(3))
        sex = np.where(np.isnan(rows[:, [3]]), np.nan, rows[:, [3]] == 1)
        return np.hstack([rows[:, :1], city, rows[:, 2:3], sex]).astype(np.float32)

    encoding, expanded = TabularEncoding.fit(mixed), fit(by_hand(mixed.rows))
    assert encoding.num_columns == 4
    assert encoding.width == expanded.width
    for rows in (mixed.rows, odd_rows(mixed)):
        np.testing.assert_array_equal(encode(encoding, rows), encode(expanded, by_hand(rows)))


def test_an_unknown_code_is_none_of_the_categories(mixed):
    city = ProxySet(schema=(CITY,), rows=mixed.rows[:, 1:2])
    codes = encode(TabularEncoding.fit(city), [[0], [1], [2], [7], [np.nan]])
    np.testing.assert_array_equal(codes, [*np.eye(4)[:3], np.zeros(4), [0, 0, 0, 1]])


def test_an_encoding_of_categories_is_rebuilt_from_its_state(mixed):
    encoding = TabularEncoding.fit(mixed)
    rebuilt = TabularEncoding(encoding.state_dict())
    rows = odd_rows(mixed)
    np.testing.assert_array_equal(encode(rebuilt, rows), encode(encoding, rows))
    assert rebuilt.num_columns == 4


def test_tables_without_categories_have_no_expansion(rows):
    encoding = fit(rows)
    assert len(encoding.expand_column) == len(encoding.expand_code) == 0
    assert encoding.num_columns == rows.shape[1]


@settings(deadline=None)
@given(st.data())
def test_only_some_codes_are_those_codes_of_the_same_rows(data) -> None:
    proxy = mixed_proxy()
    whole = TabularEncoding.fit(proxy)
    codes = sorted(data.draw(st.sets(st.integers(0, whole.width - 1), min_size=1)))
    some = whole.only(codes)
    rows = odd_rows(proxy)
    assert (some.width, some.num_columns) == (len(codes), whole.num_columns)
    np.testing.assert_array_equal(encode(some, rows), encode(whole, rows)[:, codes])
