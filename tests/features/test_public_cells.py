import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import ProxySet, numbers
from fedistill.features import proxy_basis
from fedistill.features.public_cells import PublicCells, public_cells


def proxy_of(num_rows: int, seed: int = 0) -> ProxySet:
    rows = np.random.default_rng(seed).normal(size=(num_rows, 3))
    return ProxySet(schema=numbers("abc"), rows=rows)


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return proxy_of(300)


@pytest.fixture(scope="module")
def cells(proxy) -> PublicCells:
    return public_cells(proxy, cells=20, partitions=3)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_records_cells_do_not_depend_on_the_other_rows(proxy, cells, seed: int) -> None:
    """PRIVACY rule 8: deleting rows moves no other row to another cell."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(200, 3)) * 10 ** random.uniform(-2, 6)
    rows[random.random(rows.shape) < 0.1] = np.nan
    features = proxy_basis(proxy).map.transform(rows.astype(np.float32))
    kept = np.flatnonzero(random.random(200) < random.uniform(0.001, 1))
    np.testing.assert_array_equal(cells.assign(features[kept]), cells.assign(features)[:, kept])


def test_a_record_has_one_cell_in_each_partition(proxy, cells) -> None:
    placed = cells.assign(proxy_basis(proxy).map.transform(proxy.rows))
    assert placed.shape == (3, 300)
    assert cells.num_cells == 60
    np.testing.assert_array_equal(placed // 20, np.arange(3)[:, None] * np.ones(300, int))
    np.testing.assert_array_equal(placed, cells.of_proxy)


def test_the_cell_is_the_nearest_centroid(proxy, cells) -> None:
    """Oracle: all distances, in Python's integers."""
    features = proxy_basis(proxy).map.transform(proxy.rows[:20]).astype(object)
    for partition, centroids in enumerate(cells.centroids):
        apart = features[:, None, :] - centroids.astype(object)[None]
        nearest = (apart**2).sum(axis=2).argmin(axis=1) + 20 * partition
        np.testing.assert_array_equal(cells.of_proxy[partition, :20], nearest.astype(int))


def test_of_two_equally_near_centroids_the_first_is_taken() -> None:
    twins = np.array([[5, 5], [1, 1], [1, 1]])
    cells = PublicCells(centroids=(twins,), of_proxy=np.zeros((1, 0), np.int64))
    np.testing.assert_array_equal(cells.assign(np.array([[0, 1], [3, 3], [9, 9]])), [[1, 0, 0]])


def test_partitions_differ_and_are_the_same_each_time(proxy, cells) -> None:
    first, second, _ = cells.of_proxy
    pairs = np.unique(np.stack([first, second]), axis=1).shape[1]
    assert pairs > 20
    public_cells.cache_clear()
    again = public_cells(proxy, cells=20, partitions=3)
    for one, other in zip(cells.centroids, again.centroids, strict=True):
        np.testing.assert_array_equal(one, other)


def test_shares_sum_to_one_in_each_partition(cells) -> None:
    np.testing.assert_allclose(cells.proxy_share.reshape(3, 20).sum(axis=1), 1)


def test_there_are_no_more_cells_than_different_proxy_rows() -> None:
    few = ProxySet(schema=numbers("ab"), rows=np.repeat([[0.0, 1.0], [1.0, 0.0]], 30, axis=0))
    cells = public_cells(few, cells=100, partitions=2)
    assert cells.num_cells == 4
