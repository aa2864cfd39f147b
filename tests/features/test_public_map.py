import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import ProxySet, load_table, numbers, split_table
from fedistill.data.schema import ColumnSchema, Kind
from fedistill.features import FEATURE_STEP, fit_public_map
from fedistill.privacy.grid import squared_norms

CITY = ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Bonn", "Köln", "Ulm"))
SEX = ColumnSchema(name="sex", kind=Kind.CATEGORY, categories=("f", "m"))


def proxy_of(rows: np.ndarray) -> ProxySet:
    return ProxySet(schema=numbers(f"x{j}" for j in range(rows.shape[1])), rows=rows)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    table = load_table("credit_default")
    split = split_table(table, proxy_fraction=0.05, test_fraction=0.05)
    rows = split.proxy.rows.copy()
    rows[::7, 3] = np.nan
    return rows


@pytest.fixture(scope="module")
def fitted(rows: np.ndarray):
    return fit_public_map(proxy_of(rows))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_records_features_do_not_depend_on_the_other_rows(fitted, rows, seed) -> None:
    """PRIVACY rule 8: deleting rows leaves the others' integers bit for bit as they were."""
    random = np.random.default_rng(seed)
    kept = np.flatnonzero(random.random(len(rows)) < random.uniform(0.001, 1))
    whole = fitted.transform(rows)
    np.testing.assert_array_equal(fitted.transform(rows[kept]), whole[kept])


def test_every_row_has_norm_at_most_one(fitted, rows) -> None:
    wild = rows * np.float32(1e30)
    wild[0] = np.inf
    wild[1] = -np.inf
    wild[2] = np.nan
    for batch in (rows, wild):
        assert squared_norms(fitted.transform(batch)).max() <= FEATURE_STEP**-2


def test_constant_and_all_missing_columns_are_harmless(rows) -> None:
    odd = rows.copy()
    odd[:, 0] = 5.0
    odd[:, 1] = np.nan
    features = fit_public_map(proxy_of(odd)).transform(odd)
    assert np.abs(features).max() <= 1 / FEATURE_STEP
    assert (np.abs(features).sum(axis=1) > 0).all()


def test_features_span_no_more_directions_than_the_proxy_rows_hold(rows) -> None:
    small = fit_public_map(proxy_of(rows[:40]))
    assert small.num_features <= 41


def test_integers_are_close_to_the_float_formula(fitted, rows) -> None:
    """Oracle: the same map in plain float64, without any grid."""
    main = fitted.main.transform(rows)
    main = main / np.linalg.norm(main, axis=1, keepdims=True)
    kernel = ((1 + main @ (fitted.landmarks.T * 2.0**-20)) / 2) ** 4
    scale = 2.0**-fitted.projection_bits
    directions = main @ (fitted.from_main * scale) + kernel @ (fitted.from_kernel * scale)
    directions -= fitted.offset
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = np.hstack([np.full((len(rows), 1), 0.2), directions * np.sqrt(0.96)])
    np.testing.assert_allclose(fitted.transform(rows) * FEATURE_STEP, expected, atol=2e-3)


def coded(num_rows: int, seed: int) -> np.ndarray:
    """A number, a city, a sex and another number, with missing cells."""
    random = np.random.default_rng(seed)
    rows = np.stack(
        [
            random.normal(size=num_rows),
            random.choice(3, size=num_rows, p=[0.6, 0.3, 0.1]),
            random.integers(0, 2, num_rows),
            random.exponential(size=num_rows),
        ],
        axis=1,
    )
    rows[random.random(num_rows) < 0.1, 1] = np.nan
    rows[random.random(num_rows) < 0.05, 3] = np.nan
    return rows.astype(np.float32)


def hand_expanded(rows: np.ndarray) -> np.ndarray:
    """`coded` rows with the city as three 0/1 columns; the sex is one already."""
    known = np.where(np.isnan(rows[:, [1]]), np.nan, rows[:, [1]] == np.arange(3))
    return np.hstack([rows[:, :1], known, rows[:, 2:]]).astype(np.float32)


def test_a_category_gives_the_features_of_its_indicator_columns() -> None:
    """Proxy rows and other rows, with a code that no proxy row has among them."""
    a, b = numbers("ab")
    proxy = ProxySet(schema=(a, CITY, SEX, b), rows=coded(500, seed=0))
    by_hand = proxy_of(hand_expanded(proxy.rows))
    others = coded(100, seed=1)
    others[:5, 1] = 7
    with_category, without = fit_public_map(proxy), fit_public_map(by_hand)
    for rows in (proxy.rows, others):
        np.testing.assert_array_equal(
            with_category.transform(rows), without.transform(hand_expanded(rows))
        )


def test_a_categorys_indicators_share_one_missing_flag() -> None:
    a, b = numbers("ab")
    rows = coded(500, seed=0)
    flagged = fit_public_map(ProxySet(schema=(a, CITY, SEX, b), rows=rows)).main.flagged
    assert flagged == (1, 5)


def test_the_order_of_codes_means_nothing_to_the_kernel() -> None:
    """Renaming the categories permutes indicators: rows stay as near to one another as before.

    The landmarks are the same rows and directions keep their angles, so that inner products of
    features agree up to the grid and to the order of sums in the fit.
    """
    a, b = numbers("ab")
    schema = (a, CITY, SEX, b)
    rows = coded(500, seed=0)
    renamed = rows.copy()
    renamed[:, 1] = np.float32([2, 0, 1])[np.nan_to_num(rows[:, 1]).astype(int)]
    renamed[np.isnan(rows[:, 1]), 1] = np.nan
    one, other = (
        fit_public_map(ProxySet(schema=schema, rows=some)).transform(some) * FEATURE_STEP
        for some in (rows, renamed)
    )
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-3)


def test_features_of_categories_do_not_depend_on_the_other_rows() -> None:
    a, b = numbers("ab")
    rows = coded(400, seed=0)
    fitted = fit_public_map(ProxySet(schema=(a, CITY, SEX, b), rows=rows))
    whole = fitted.transform(rows)
    for kept in ([0], [3, 399], list(range(0, 400, 7))):
        np.testing.assert_array_equal(fitted.transform(rows[kept]), whole[kept])
