"""The proxy set seen through its own feature map."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.features.embedding_map import EmbeddingMap, fit_embedding_map
from fedistill.features.public_map import FEATURE_STEP, PublicMap, fit_public_map
from fedistill.privacy.grid import from_grid

Floats = npt.NDArray[np.float64]

_EIGENVALUE_FLOOR = 1e-12


@dataclass(frozen=True)
class ProxyBasis:
    """The feature map of a proxy set, with the proxy rows' features and their curvature.

    Attributes:
        map: Fitted on the proxy rows; of their embeddings where the proxy set has an encoder.
        values: (num_proxy, num_features) features of the proxy rows.
        eigenvalues: (num_features,) of the mean outer product of `values`, at least 1e-12.
        eigenvectors: (num_features, num_features), one a column.
    """

    map: PublicMap | EmbeddingMap
    values: Floats
    eigenvalues: Floats
    eigenvectors: Floats

    def features(self, rows: npt.NDArray[np.float32]) -> Floats:
        """Features of raw rows as floats, (num_rows, num_features)."""
        return from_grid(self.map.transform(rows), FEATURE_STEP)

    @cached_property
    def pseudo_inverse(self) -> Floats:
        """(num_features, num_proxy): least squares from proxy labels to weights."""
        return np.asarray(np.linalg.pinv(self.values, rcond=1e-9), np.float64)


_bases: dict[str, ProxyBasis] = {}


def proxy_basis(proxy: ProxySet) -> ProxyBasis:
    """The basis of a proxy set, fitted once a process and kept for the latest proxy set.

    Raises:
        PolicyRefusal: The proxy set's encoder cannot be used; see `row_encoder`.
    """
    if proxy.sha256 not in _bases:
        _bases.clear()
        _bases[proxy.sha256] = _fit(proxy)
    return _bases[proxy.sha256]


def _fit(proxy: ProxySet) -> ProxyBasis:
    fitted = fit_public_map(proxy) if proxy.encoder is None else fit_embedding_map(proxy)
    values = from_grid(fitted.transform(proxy.rows), FEATURE_STEP)
    eigenvalues, eigenvectors = np.linalg.eigh(values.T @ values / len(values))
    return ProxyBasis(fitted, values, np.maximum(eigenvalues, _EIGENVALUE_FLOOR), eigenvectors)
