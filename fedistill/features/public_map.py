"""The public feature map: raw columns to at most 301 integer features of norm at most one.

Fitted on proxy rows alone (PRIVACY rule 6). Categories become 0/1 columns first. Main effects are
clipped z-scores, thermometer codes of quantiles and missing flags; interactions are Nystroem
features (Williams and Seeger 2001) of the kernel ((1 + <a, b>) / 2)^4; principal directions keep
what the proxy set can estimate.

A record's features are computed with elementwise float operations and products of integers that
float64 holds exactly, so that they depend on that record alone, whatever else is in the batch
(PRIVACY rule 8): no rounding happens inside a sum.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.features.expansion import Expansion
from fedistill.features.main_effects import MainEffects, fit_main_effects
from fedistill.privacy.grid import EXACT, exact_matmul, from_grid, squared_norms, to_grid

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

FEATURE_STEP = 2.0**-16
"""Features are integers in steps of this; their rows have L2 norm at most 2**16."""

BITS = 20
STEP = 2.0**-BITS
_LANDMARKS = 300
_MAX_DIRECTIONS = 300
_INTERCEPT = 0.2
_BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class PublicMap:
    """A fitted map.

    Attributes:
        expansion: Raw columns to columns without categories.
        main: Expanded columns to main effects, before each row gets unit norm.
        landmarks: (num_landmarks, num_main) integers, 2**20 stands for 1.
        from_main: (num_main, num_directions) integers, `2**projection_bits` stands for 1.
        from_kernel: (num_landmarks, num_directions) integers, likewise.
        offset: (num_directions,) the proxy rows' mean before centring.
        projection_bits: See above.
    """

    expansion: Expansion
    main: MainEffects
    landmarks: Integers
    from_main: Integers
    from_kernel: Integers
    offset: Floats
    projection_bits: int

    @property
    def num_features(self) -> int:
        """Intercept and principal directions."""
        return len(self.offset) + 1

    def transform(self, rows: npt.NDArray[np.float32]) -> Integers:
        """Integer features of raw rows.

        Args:
            rows: (num_rows, num_columns) raw values as the proxy set's schema codes them, NaN for
                missing.

        Returns:
            (num_rows, num_features) int64 in steps of `FEATURE_STEP`; every row's L2 norm is at
            most 1 / FEATURE_STEP.
        """
        blocks = [self._block(rows[i : i + _BLOCK_ROWS]) for i in range(0, len(rows), _BLOCK_ROWS)]
        return np.concatenate([np.zeros((0, self.num_features), np.int64), *blocks])

    def _block(self, rows: npt.NDArray[np.float32]) -> Integers:
        effects = self.main.transform(self.expansion.transform(rows))
        main = to_grid(unit_rows(effects), STEP)
        kernel = to_grid(_kernel(main, self.landmarks), STEP)
        projected = exact_matmul(main, self.from_main) + exact_matmul(kernel, self.from_kernel)
        directions = from_grid(projected, 2.0 ** -(BITS + self.projection_bits)) - self.offset
        return to_grid(with_intercept(unit_rows(directions)), FEATURE_STEP)


def fit_public_map(proxy: ProxySet) -> PublicMap:
    """Fit the map on the proxy set's schema and rows alone."""
    expansion = Expansion.of(proxy.schema)
    expanded = expansion.transform(proxy.rows)
    main_effects = fit_main_effects(expanded)
    main = to_grid(unit_rows(main_effects.transform(expanded)), STEP)
    chosen = np.random.default_rng(0).permutation(len(main))[:_LANDMARKS]
    landmarks = main[chosen]
    kernel = to_grid(_kernel(main, landmarks), STEP)
    whitening = _whitening(_kernel(landmarks, landmarks))

    parts = [from_grid(main, STEP), from_grid(kernel, STEP) @ whitening]
    means = [part.mean(axis=0) for part in parts]
    scales = [_unit_variance(part) for part in parts]
    joint = np.concatenate(
        [(part - mean) * scale for part, mean, scale in zip(parts, means, scales, strict=True)], 1
    )
    directions = principal_directions(joint)
    num_main = main.shape[1]
    from_main = scales[0] * directions[:num_main]
    from_kernel = scales[1] * whitening @ directions[num_main:]
    bits = projection_bits(from_main, from_kernel)
    offset = means[0] @ from_main + scales[1] * means[1] @ directions[num_main:]
    return PublicMap(
        expansion=expansion,
        main=main_effects,
        landmarks=landmarks,
        from_main=to_grid(from_main, 2.0**-bits),
        from_kernel=to_grid(from_kernel, 2.0**-bits),
        offset=offset,
        projection_bits=bits,
    )


def unit_rows(values: Floats) -> Floats:
    """Scale each row to L2 norm one, summing squares of integers so that no sum rounds."""
    # A public bound: whatever a row holds, its squares fit 63 bits.
    largest = math.sqrt(2.0**62 / max(values.shape[1], 1)) * STEP
    integers = to_grid(np.clip(values, -largest, largest), STEP)
    norms = np.sqrt(squared_norms(integers).astype(np.float64))
    unit: Floats = integers / np.maximum(norms, 1.0)[:, None]
    return unit


def _kernel(main: Integers, landmarks: Integers) -> Floats:
    half = (1.0 + from_grid(exact_matmul(main, landmarks.T), STEP**2)) / 2.0
    squared = half * half
    return squared * squared


def _whitening(kernel: Floats) -> Floats:
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-5 * values.max()
    whitening: Floats = vectors[:, kept] / np.sqrt(values[kept])
    return whitening


def _unit_variance(part: Floats) -> float:
    return float(1.0 / np.sqrt(max(part.var(axis=0).sum(), 1e-12)))


def principal_directions(joint: Floats) -> Floats:
    """Directions that hold at least one proxy row's worth of the total variance."""
    values, vectors = np.linalg.eigh(joint.T @ joint / len(joint))
    order = np.argsort(-values)[:_MAX_DIRECTIONS]
    mass = values[order] / max(np.clip(values, 0, None).sum(), 1e-12) * len(joint)
    kept: Floats = vectors[:, order[mass >= 1.0]]
    return kept


def projection_bits(*parts: Floats) -> int:
    """The finest grid at which products with entries of at most 2**20 stay exact in float64."""
    largest = max(float(np.abs(part).sum(axis=0).max(initial=1e-9)) for part in parts)
    return min(24, int(np.floor(np.log2(EXACT / 4 / largest))) - BITS)


def with_intercept(unit: Floats) -> Floats:
    """An intercept before rows of norm one, (num_rows, 1 + num_directions), of norm one again."""
    intercept = np.full((len(unit), 1), _INTERCEPT)
    return np.concatenate([intercept, unit * np.sqrt(1.0 - _INTERCEPT**2)], axis=1)
