import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedistill.distill.encoding import TabularEncoding
from fedistill.errors import DataError


def encode(encoding: TabularEncoding, rows: np.ndarray) -> np.ndarray:
    return encoding(torch.tensor(np.asarray(rows, dtype=np.float32))).numpy()


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

    encoding = TabularEncoding.fit(column[:, None])

    np.testing.assert_allclose(encode(encoding, column[:, None]), expected, atol=2e-5)


def test_distinct_values_give_edges_where_row_quantiles_collapse(rows):
    spike = rows[:, 7:8]
    assert np.quantile(spike, 15 / 16) == 0
    codes = encode(TabularEncoding.fit(spike), [[0.0], [50.0], [spike.max()]])
    assert len(np.unique(codes, axis=0)) == 3
    assert codes.shape[1] >= 8


def test_a_column_of_few_values_has_one_code_for_each_gap():
    column = np.float32([0] * 80 + [1] * 15 + [2] * 4 + [7])[:, None]
    encoding = TabularEncoding.fit(column)
    assert encoding.bin_start.tolist() == [0, 1, 2]
    np.testing.assert_allclose(encode(encoding, [[4.5]])[0, :3], [1, 1, 0.5])


def test_heavy_tails_are_resolved_at_every_magnitude(rows):
    heavy = rows[:, 1:2]
    some = np.quantile(heavy, [0.1, 0.3, 0.5, 0.7, 0.9])[:, None]
    codes = encode(TabularEncoding.fit(heavy), some)
    assert len(np.unique(codes.round(3), axis=0)) == 5


def test_a_binary_column_has_one_code_and_no_z_score():
    encoding = TabularEncoding.fit(np.float32([[0], [1], [1], [0], [1]]))
    assert encoding.width == 1
    assert encode(encoding, [[0], [1], [0.25]]).ravel().tolist() == [0, 1, 0.25]


def test_constant_and_empty_columns_are_dropped(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoding = TabularEncoding.fit(rows)
    used = {*encoding.bin_column.tolist(), *encoding.z_column.tolist()}
    assert used == {0, 1, 2, 5, 6, 7}
    assert encoding.flag_column.tolist() == [5]


def test_columns_missing_together_share_a_flag(rows):
    encoding = TabularEncoding.fit(rows[:, 5:7])
    flags = encode(encoding, rows[:, 5:7])[:, -1]
    assert encoding.flag_column.tolist() == [0]
    np.testing.assert_array_equal(flags, np.isnan(rows[:, 5]))


def test_a_flagged_missing_value_codes_as_zeros(rows):
    codes = encode(TabularEncoding.fit(rows[:, 5:6]), [[np.nan]])[0]
    assert codes[-1] == 1
    np.testing.assert_array_equal(codes[:-1], 0)


def test_a_missing_value_no_proxy_row_foretold_codes_as_the_median(rows):
    normal = rows[:, 0:1]
    encoding = TabularEncoding.fit(normal)
    np.testing.assert_allclose(
        encode(encoding, [[np.nan]]), encode(encoding, [[np.median(normal)]]), atol=1e-6
    )


def test_infinite_proxy_values_do_not_spoil_the_fit():
    column = np.float32([[0], [1], [2], [3], [np.inf], [-np.inf]])
    encoding = TabularEncoding.fit(column)
    np.testing.assert_array_equal(encode(encoding, [[np.inf]]), np.ones((1, encoding.width)))
    assert encode(encoding, [[-np.inf]]).min() == -1


def test_values_closer_than_float32_resolves_do_not_become_edges():
    column = np.float32([[1e9], [1e9 + 64], [1e9 + 128], [5e9]])
    encoding = TabularEncoding.fit(column)
    assert encoding.bin_scale.max() < 1 / 64


def test_a_table_without_any_variation_is_refused():
    with pytest.raises(DataError, match="none of 2 columns"):
        TabularEncoding.fit(np.float32([[1, np.nan], [1, np.nan]]))


@given(
    proxy=st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=2, max_size=30),
    row=st.lists(st.floats(width=32), min_size=3, max_size=3),
)
def test_codes_are_finite_and_bounded_for_any_row(proxy, row):
    try:
        encoding = TabularEncoding.fit(np.float32(proxy))
    except DataError:
        return
    codes = encode(encoding, np.float32([*proxy, row]))
    assert np.isfinite(codes).all()
    assert np.abs(codes).max() <= 1


def test_the_fit_depends_on_the_set_of_rows_not_on_their_order(rows):
    shuffled = rows[np.random.default_rng(1).permutation(len(rows))]
    one, other = TabularEncoding.fit(rows), TabularEncoding.fit(shuffled)
    for name, buffer in one.state_dict().items():
        torch.testing.assert_close(buffer, other.state_dict()[name], rtol=1e-5, atol=1e-5)
