"""The feature map of embeddings: at most 301 integer features of norm at most one.

Fitted on proxy rows alone (PRIVACY rule 6): embeddings are standardised, each gets unit norm, and
principal directions keep what the proxy set can estimate. Grid, unit norm and intercept are those
of the tabular map. Each row is encoded alone, floats are combined elementwise, and products are of
integers that float64 holds exactly, so a record's features depend on that record alone (PRIVACY
rule 8).
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features.encoders import RowEncoder, row_encoder
from fedistill.features.public_map import (
    BITS,
    FEATURE_STEP,
    STEP,
    principal_directions,
    projection_bits,
    unit_rows,
    with_intercept,
)
from fedistill.privacy.grid import exact_matmul, from_grid, to_grid

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_SMALLEST_STD = 1e-9
_BLOCK_ROWS = 4096
_REMEMBERED = 4


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """A fitted map.

    Attributes:
        encoder: Raw rows to embeddings.
        mean: (dimensions,) of the proxy rows' embeddings.
        std: (dimensions,) likewise; infinite for a dimension that does not vary.
        directions: (dimensions, num_directions) integers, `2**projection_bits` stands for 1.
        offset: (num_directions,) the proxy rows' mean before centring.
        projection_bits: See above.
    """

    encoder: RowEncoder
    mean: Floats
    std: Floats
    directions: Integers
    offset: Floats
    projection_bits: int
    _known: OrderedDict[bytes, Integers] = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )

    @property
    def num_features(self) -> int:
        """Intercept and principal directions."""
        return len(self.offset) + 1

    def transform(self, rows: npt.NDArray[np.float32]) -> Integers:
        """Integer features of raw rows; those of the latest few tables are remembered.

        Args:
            rows: (num_rows, num_columns) raw values.

        Returns:
            (num_rows, num_features) int64 in steps of `FEATURE_STEP`; every row's L2 norm is at
            most 1 / FEATURE_STEP. A row without an embedding is zero throughout, its intercept
            too, and so contributes nothing. Not to be written to.
        """
        # Each round of a run asks about the same rows, and projecting them exactly takes long.
        shape = repr(rows.shape).encode()
        key = hashlib.sha256(shape + np.ascontiguousarray(rows).tobytes()).digest()
        # Threads may meet here: what one of them found is its own, whatever the others forget.
        features = self._known.get(key)
        if features is None:
            features = self._features(rows)
            features.flags.writeable = False
            self._known[key] = features
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return features

    def _features(self, rows: npt.NDArray[np.float32]) -> Integers:
        values = self.encoder.embed(rows)
        starts = range(0, len(values), _BLOCK_ROWS)
        blocks = [self._block(values[start : start + _BLOCK_ROWS]) for start in starts]
        return np.concatenate([np.zeros((0, self.num_features), np.int64), *blocks])

    def _block(self, values: Floats) -> Integers:
        projected = exact_matmul(_standardised(values, self.mean, self.std), self.directions)
        along = from_grid(projected, 2.0 ** -(BITS + self.projection_bits)) - self.offset
        features = to_grid(with_intercept(unit_rows(along)), FEATURE_STEP)
        features[~np.isfinite(values).all(axis=1)] = 0
        return features


def fit_embedding_map(proxy: ProxySet) -> EmbeddingMap:
    """Fit the map on the embeddings of the proxy set's rows alone.

    Raises:
        PolicyRefusal: The encoder cannot be loaded, is unfit for the proxy rows, or tells none of
            them from another.
    """
    encoder = row_encoder(proxy)
    values = encoder.embed(proxy.rows)
    mean, std = values.mean(axis=0), values.std(axis=0)
    varies = np.isfinite(std) & (std > _SMALLEST_STD * np.maximum(np.abs(mean), 1.0))
    if not varies.any():
        raise PolicyRefusal(
            f"encoder={encoder.encoder.name!r} must tell proxy rows apart, but gives the same "
            f"embedding for all {len(values)}: choose another, or bring proxy rows that differ"
        )
    std = np.where(varies, std, np.inf)
    standardised = from_grid(_standardised(values, mean, std), STEP)
    centre = standardised.mean(axis=0)
    directions = principal_directions(standardised - centre)
    bits = projection_bits(directions)
    return EmbeddingMap(
        encoder=encoder,
        mean=mean,
        std=std,
        directions=to_grid(directions, 2.0**-bits),
        offset=centre @ directions,
        projection_bits=bits,
    )


def _standardised(values: Floats, mean: Floats, std: Floats) -> Integers:
    """Standardised embeddings of unit norm, 2**20 stands for 1."""
    # A private row's difference may overflow, and its features must not depend on who warns.
    with np.errstate(over="ignore", invalid="ignore"):
        return to_grid(unit_rows((values - mean) / std), STEP)
