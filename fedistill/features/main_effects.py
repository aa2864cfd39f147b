"""Main effects of expanded columns: clipped z-scores, thermometer codes, missing flags.

Every operation is elementwise, so a row's effects depend on that row alone.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_EDGES = 15
_WIDE = 2000
"""Thermometer codes of a table, above which columns share `_CODES_OF_WIDE` of them."""

_CODES_OF_WIDE = 1000
_Z_LIMIT = 3.0
_Z_VARIANCE = 1.0
_MISSING_VARIANCE = 0.3
_MOST_THERMOMETER_VARIANCE = 2.0
_MISSING_SHARE = (0.002, 0.998)


@dataclass(frozen=True, kw_only=True)
class MainEffects:
    """Statistics of the proxy rows that turn expanded columns into centred, weighted effects.

    Attributes:
        median: (num_columns,) fill value of missing cells.
        mean: (num_columns,) after filling.
        std: (num_columns,) after filling; 0 marks a constant column, which gives no z-score.
        edges: Column index to its sorted quantile edges (the code is `value >= edge`).
        shares: Column index to the share of proxy rows at or above each edge, for missing cells.
        flagged: Columns whose missing flag is a feature.
        offset: (num_effects,) proxy means of the raw effects.
        scale: (num_effects,) weight of each effect.
    """

    median: Floats
    mean: Floats
    std: Floats
    edges: dict[int, Floats]
    shares: dict[int, Floats]
    flagged: tuple[int, ...]
    offset: Floats
    scale: Floats

    def transform(self, rows: npt.NDArray[np.float32]) -> Floats:
        """Effects of expanded rows, (num_rows, num_effects); NaN is missing, infinities clip."""
        return (_raw(rows, self) - self.offset) * self.scale


def fit_main_effects(proxy_rows: npt.NDArray[np.float32]) -> MainEffects:
    """Fit on proxy rows alone: (num_proxy, num_columns) expanded values, NaN for missing."""
    rows = proxy_rows.astype(np.float64)
    missing = np.isnan(rows)
    median = np.nanmedian(np.where(missing.all(axis=0), 0.0, rows), axis=0)
    filled = np.where(missing, median, rows)
    std = filled.std(axis=0)
    edges, shares = _thermometers(rows, missing, filled)
    unscaled = MainEffects(
        median=median,
        mean=filled.mean(axis=0),
        std=np.where(std > 1e-9, std, 0.0),
        edges=edges,
        shares=shares,
        flagged=_flagged(missing),
        offset=np.zeros(1),
        scale=np.ones(1),
    )
    effects = _raw(proxy_rows, unscaled)
    offset = effects.mean(axis=0)
    bent = sum(distance_from_normal(rows[~missing[:, column], column]) for column in edges)
    scale = _scales(unscaled, effects.var(axis=0), min(bent, _MOST_THERMOMETER_VARIANCE))
    return MainEffects(**{**vars(unscaled), "offset": offset, "scale": scale})


def _raw(rows: npt.NDArray[np.float32], fitted: MainEffects) -> Floats:
    values = rows.astype(np.float64)
    missing = np.isnan(values)
    live = fitted.std > 0
    filled = np.where(missing, fitted.median, values)
    z = (filled[:, live] - fitted.mean[live]) / fitted.std[live]
    parts = [np.clip(z, -_Z_LIMIT, _Z_LIMIT)]
    for column, edges in fitted.edges.items():
        code = values[:, [column]] >= edges
        parts.append(np.where(missing[:, [column]], fitted.shares[column], code))
    parts.append(missing[:, list(fitted.flagged)].astype(np.float64))
    return np.concatenate(parts, axis=1)


def _thermometers(
    rows: Floats, missing: npt.NDArray[np.bool_], filled: Floats
) -> tuple[dict[int, Floats], dict[int, Floats]]:
    """Quantile edges of the columns with more than two values."""
    edges, shares = {}, {}
    columns = [j for j in range(rows.shape[1]) if len(np.unique(filled[:, j])) > 2]
    num_edges = _num_edges(len(columns))
    for column in columns if num_edges else ():
        present = rows[~missing[:, column], column]
        quantiles = np.quantile(present, np.linspace(0, 1, num_edges + 2)[1:-1])
        inner = np.unique(quantiles)
        inner = inner[inner > present.min()]
        if len(inner):
            edges[column] = inner
            shares[column] = (present[:, None] >= inner).mean(axis=0)
    return edges, shares


def _num_edges(num_columns: int) -> int:
    """Edges of each column: fewer where a wide table would make the map slow, at last none."""
    if num_columns * _EDGES <= _WIDE:
        return _EDGES
    return _CODES_OF_WIDE // num_columns


def _flagged(missing: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Columns that are sometimes missing, one per distinct pattern."""
    low, high = _MISSING_SHARE
    patterns = {
        missing[:, column].tobytes(): column
        for column in reversed(range(missing.shape[1]))
        if low < missing[:, column].mean() < high
    }
    return tuple(sorted(patterns.values()))


def distance_from_normal(values: Floats) -> float:
    """One minus the squared correlation of values (n,) with normal scores; 0 for a normal law.

    Shapiro and Francia 1972, "An approximate analysis of variance test for normality"; equal values
    share the score of their middle rank.
    """
    distinct, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) < 2:
        return 0.0
    middle = (np.cumsum(counts) - counts / 2) / len(values)
    scores = np.array([NormalDist().inv_cdf(float(share)) for share in middle])[position]
    return float(1 - np.corrcoef(values, scores)[0, 1] ** 2)


def _scales(fitted: MainEffects, variances: Floats, thermometer: float) -> Floats:
    """Weights of all effects: z-scores count alike, and so do the columns' thermometer codes."""
    num_z, share = int((fitted.std > 0).sum()), thermometer / max(len(fitted.edges), 1)
    blocks = [(num_z, _Z_VARIANCE)]
    blocks += [(len(edges), share) for edges in fitted.edges.values()]
    blocks.append((len(fitted.flagged), _MISSING_VARIANCE))
    scales, start = [], 0
    for size, variance in blocks:
        total = variances[start : start + size].sum()
        scales.append(np.full(size, np.sqrt(variance / max(total, 1e-9))))
        start += size
    return np.concatenate(scales)
