"""Public cells: the proxy set's features cut into clusters, several times over.

Fitted on proxy rows alone (PRIVACY rule 6). A record's cell in each partition is the nearest
centroid by exact integer arithmetic, the lowest index where two are equally near, so that it
depends on that record and on public centroids alone (PRIVACY rule 8).
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.features.proxy_basis import proxy_basis
from fedistill.features.public_map import FEATURE_STEP
from fedistill.privacy.grid import exact_matmul, squared_norms, to_grid

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK_ROWS = 2**14
_BATCH_ROWS = 4096
_SMALL = 20_000
"""Up to so many proxy rows every step of k-means sees all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicCells:
    """Partitions of the feature space. Cells are numbered through all partitions.

    Attributes:
        centroids: One array (cells_each, num_features) a partition, in steps of `FEATURE_STEP`.
        of_proxy: (num_partitions, num_proxy) cell of each proxy row in each partition.
    """

    centroids: tuple[Integers, ...]
    of_proxy: Integers

    @property
    def num_partitions(self) -> int:
        """Votes of each record."""
        return len(self.centroids)

    @property
    def num_cells(self) -> int:
        """Cells of all partitions together."""
        return len(self.centroids) * len(self.centroids[0])

    @property
    def proxy_share(self) -> Floats:
        """(num_cells,) share of the proxy rows in each cell; sums to one in each partition."""
        counts = np.bincount(self.of_proxy.ravel(), minlength=self.num_cells)
        share: Floats = counts / self.of_proxy.shape[1]
        return share

    def assign(self, features: Integers) -> Integers:
        """Cells of records: (num_rows, num_features) to (num_partitions, num_rows) int64.

        Args:
            features: As `PublicMap.transform` gives them.
        """
        return np.stack(
            [
                _nearest(features, centroids) + partition * len(centroids)
                for partition, centroids in enumerate(self.centroids)
            ]
        )


@lru_cache(maxsize=4)
def public_cells(proxy: ProxySet, *, cells: int, partitions: int) -> PublicCells:
    """Partitions of a proxy set, fitted once a process.

    Args:
        proxy: The public rows.
        cells: Cells of each partition; no more than there are different proxy rows.
        partitions: How many; they differ in k-means' starting point, which is public and fixed.
    """
    basis = proxy_basis(proxy)
    num_cells = min(cells, len(np.unique(basis.values, axis=0)))
    centroids = tuple(
        to_grid(_k_means(basis.values, num_cells, start), FEATURE_STEP)
        for start in range(partitions)
    )
    unplaced = PublicCells(centroids=centroids, of_proxy=np.zeros((partitions, 0), np.int64))
    of_proxy = unplaced.assign(to_grid(basis.values, FEATURE_STEP))
    return PublicCells(centroids=centroids, of_proxy=of_proxy)


def _k_means(values: Floats, num_cells: int, start: int) -> Floats:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    settings = {"n_clusters": num_cells, "n_init": 1, "random_state": start}
    small = len(values) <= _SMALL
    model = KMeans(**settings) if small else MiniBatchKMeans(batch_size=_BATCH_ROWS, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(values).cluster_centers_, np.float64)


def _nearest(features: Integers, centroids: Integers) -> Integers:
    """Index of the nearest centroid: argmin of |m|^2 - 2 <x, m> in exact integers."""
    squared = squared_norms(centroids)
    blocks = [
        (squared - 2 * exact_matmul(features[i : i + _BLOCK_ROWS], centroids.T)).argmin(axis=1)
        for i in range(0, len(features), _BLOCK_ROWS)
    ]
    return np.concatenate([np.zeros(0, np.int64), *blocks])
