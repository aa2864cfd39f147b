"""How raw table columns become student inputs: piecewise-linear codes of public scale.

A column x with edges b_0 < ... < b_T becomes T numbers, clip((x - b_{t-1}) / (b_t - b_{t-1}),
0, 1): the piecewise-linear encoding (PLE) of Gorishniy, Rubachev and Babenko 2022, "On Embeddings
for Numerical Features in Tabular Deep Learning", section 3.1, except that the outermost bins are
clipped too. Edges are fitted on proxy rows alone. The part of a value beyond the outermost edges is
left to a clipped z-score, so every input of the student is bounded whatever the row holds,
infinities included.

Edges join 16 row quantiles, which follow the mass, with 8 quantiles of the distinct values, which
follow the support: on a heavy-tailed or mostly constant column the first alone collapse to a point.
Edges are values that occur, so a column of few values gets one code for each step between them.

A category column is taken apart into 0/1 columns before all this, inside the module, so that what
goes in stays the coded table.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedistill.data import ProxySet
from fedistill.errors import DataError
from fedistill.features import Expansion

Rows = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]

ROW_QUANTILES = 16
VALUE_QUANTILES = 8
FLAG_SHARE = 0.002
SMALLEST_WIDTH = 1e-30

_CODES = (
    ("bin_column", "bin_start", "bin_scale"),
    ("z_column", "z_mean", "z_scale"),
    ("flag_column",),
)
"""Buffers that have an entry for each code, in the order of the codes."""


class TabularEncoding(nn.Module):
    """Raw float32 columns, NaN for missing, to bounded student inputs.

    Where there are categories, `expand_column` and `expand_code` are those of the `Expansion`, and
    all other buffers speak of expanded columns; where there are none, both are empty.

    Output columns are, in this order: PLE codes in [0, 1], z-scores over 4 in [-1, 1] for columns
    of more than two values, and 0/1 flags of missing values, one for each distinct pattern of
    missing proxy rows. A missing value codes as zeros where its column's flag tells it from a
    small one; where proxy rows gave no ground for a flag it codes as the column's median.

    All parameters are buffers, so they travel in the state dict and in the ONNX graph; none of
    them is trained.
    """

    expand_column: Tensor
    expand_code: Tensor
    bin_column: Tensor
    bin_start: Tensor
    bin_scale: Tensor
    bin_fill: Tensor
    z_column: Tensor
    z_mean: Tensor
    z_scale: Tensor
    z_fill: Tensor
    flag_column: Tensor

    def __init__(self, buffers: dict[str, Tensor]) -> None:
        super().__init__()
        for name in TabularEncoding.__annotations__:
            self.register_buffer(name, buffers[name])

    @classmethod
    def fit(cls, proxy: ProxySet) -> Self:
        """Fit on the proxy set's schema and rows alone.

        Columns that hold fewer than two distinct values carry nothing and are dropped.

        Raises:
            DataError: No column is left.
        """
        expansion = Expansion.of(proxy.schema)
        rows = expansion.transform(proxy.rows)
        width = rows.shape[1]
        bin_column, bin_start, bin_scale = [], [], []
        z_column, z_mean, z_scale = [], [], []
        bin_fill, z_fill = np.zeros(width), np.zeros(width)
        flags, flagged = _flags(rows)
        for column in range(width):
            values = _present(rows[:, column])
            edges = _edges(values)
            if len(edges) < 2:
                continue
            bin_column += [column] * (len(edges) - 1)
            bin_start.append(edges[:-1])
            bin_scale.append(1 / np.diff(edges))
            mean, std = float(values.mean()), float(values.std())
            bin_fill[column] = edges[0] if flagged[column] else np.median(values)
            z_fill[column] = mean if flagged[column] else np.median(values)
            if len(np.unique(values)) > 2 and np.isfinite(np.float32(0.25 / std)):
                z_column.append(column)
                z_mean.append(mean)
                z_scale.append(0.25 / std)
        if not bin_column and not flags:
            raise DataError(
                f"proxy rows: none of {len(proxy.schema)} columns holds two distinct values; "
                "give proxy rows that vary"
            )
        num_expanded = 0 if expansion.is_identity else width
        return cls(
            {
                "expand_column": torch.tensor(expansion.source[:num_expanded], dtype=torch.int32),
                "expand_code": _floats(expansion.code[:num_expanded]),
                "bin_column": torch.tensor(bin_column, dtype=torch.int32),
                "bin_start": _floats(np.concatenate([np.empty(0), *bin_start])),
                "bin_scale": _floats(np.concatenate([np.empty(0), *bin_scale])),
                "bin_fill": _floats(bin_fill),
                "z_column": torch.tensor(z_column, dtype=torch.int32),
                "z_mean": _floats(z_mean),
                "z_scale": _floats(z_scale),
                "z_fill": _floats(z_fill),
                "flag_column": torch.tensor(flags, dtype=torch.int32),
            }
        )

    def only(self, codes: Sequence[int]) -> "TabularEncoding":
        """The encoding of the same raw columns that gives these of its codes alone.

        Args:
            codes: Positions among the `width` codes, rising.
        """
        kept = torch.tensor(codes, dtype=torch.int64)
        buffers = {name: tensor.clone() for name, tensor in self.named_buffers()}
        start = 0
        for names in _CODES:
            stop = start + len(buffers[names[0]])
            chosen = kept[(kept >= start) & (kept < stop)] - start
            buffers |= {name: buffers[name][chosen] for name in names}
            start = stop
        return TabularEncoding(buffers)

    @property
    def num_columns(self) -> int:
        """Raw columns that go in."""
        if len(self.expand_column):
            return int(self.expand_column[-1]) + 1
        return len(self.bin_fill)

    @property
    def width(self) -> int:
        """Encoded columns that come out."""
        return len(self.bin_column) + len(self.z_column) + len(self.flag_column)

    def forward(self, rows: Tensor) -> Tensor:
        """Raw rows (batch, num_columns) float32 to codes (batch, width) float32."""
        if len(self.expand_column):
            rows = rows.index_select(1, self.expand_column)
        missing = torch.isnan(rows)
        if len(self.expand_column):
            # A missing category becomes 0 here and is filled below, as every missing value is.
            indicators = (rows == self.expand_code).to(rows.dtype)
            rows = torch.where(torch.isnan(self.expand_code), rows, indicators)
        parts = []
        if len(self.bin_column):
            known = torch.where(missing, self.bin_fill, rows).index_select(1, self.bin_column)
            parts.append(_clip((known - self.bin_start) * self.bin_scale, 0.0))
        if len(self.z_column):
            known = torch.where(missing, self.z_fill, rows).index_select(1, self.z_column)
            parts.append(_clip((known - self.z_mean) * self.z_scale, -1.0))
        if len(self.flag_column):
            parts.append(missing.to(rows.dtype).index_select(1, self.flag_column))
        return torch.cat(parts, dim=1)


def _clip(codes: Tensor, low: float) -> Tensor:
    return torch.clamp(codes, low, 1.0)


def _floats(values: Reals | Rows | list[float]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _present(column: Rows) -> Reals:
    values: Reals = column[~np.isnan(column)].astype(np.float64)
    return values


def _edges(values: Reals) -> Reals:
    """Strictly increasing float32-distinct edges; fewer than two when the column is constant."""
    distinct = np.unique(values)
    if len(distinct) < 2:
        return distinct
    joined = np.concatenate(
        [
            np.quantile(values, np.linspace(0, 1, ROW_QUANTILES + 1), method="nearest"),
            np.quantile(distinct, np.linspace(0, 1, VALUE_QUANTILES + 1), method="nearest"),
        ]
    )
    candidates = np.unique(joined.astype(np.float32)).astype(np.float64)
    edges = [candidates[0]]
    for edge in candidates[1:]:
        # A bin must span a few float32 steps, or its slope turns rounding into signal.
        least = max(4 * np.finfo(np.float32).eps * max(abs(edge), abs(edges[-1])), SMALLEST_WIDTH)
        if edge - edges[-1] > least:
            edges.append(edge)
    return np.array(edges)


def _flags(rows: Rows) -> tuple[list[int], npt.NDArray[np.bool_]]:
    """Columns whose missingness is coded, and for each column whether some flag codes it."""
    missing = np.isnan(rows)
    share = missing.mean(axis=0)
    flags: list[int] = []
    flagged = np.zeros(rows.shape[1], dtype=np.bool_)
    seen: set[bytes] = set()
    for column in np.flatnonzero((share >= FLAG_SHARE) & (share <= 1 - FLAG_SHARE)):
        flagged[column] = True
        pattern = missing[:, column].tobytes()
        if pattern not in seen:
            seen.add(pattern)
            flags.append(int(column))
    return flags, flagged
