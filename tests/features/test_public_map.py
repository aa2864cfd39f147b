import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import load_table, split_table
from fedistill.features import FEATURE_STEP, fit_public_map
from fedistill.privacy.grid import squared_norms


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    table = load_table("credit_default")
    split = split_table(table, proxy_fraction=0.05, test_fraction=0.05)
    rows = split.proxy.rows.copy()
    rows[::7, 3] = np.nan
    return rows


@pytest.fixture(scope="module")
def fitted(rows: np.ndarray):
    return fit_public_map(rows)


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
    features = fit_public_map(odd).transform(odd)
    assert np.abs(features).max() <= 1 / FEATURE_STEP
    assert (np.abs(features).sum(axis=1) > 0).all()


def test_features_span_no_more_directions_than_the_proxy_rows_hold(rows) -> None:
    small = fit_public_map(rows[:40])
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
