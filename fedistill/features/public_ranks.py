"""Columns as ranks among the proxy rows' values: bounded, even, and without missing values."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.features.teacher_columns import TeacherColumns

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PublicRanks:
    """Columns as ranks among the proxy rows' values, and whether a value is missing.

    Elementwise: a record's ranks depend on that record and on the proxy set alone.

    Attributes:
        columns: Categories to 0/1 columns, or rows to embeddings.
        values: For each such column, the proxy rows' values, sorted.
        flagged: Such columns that get a second, 0/1 column for missing values.
    """

    columns: TeacherColumns
    values: tuple[npt.NDArray[np.float32], ...]
    flagged: npt.NDArray[np.int64]

    @classmethod
    def of(cls, proxy: ProxySet) -> "PublicRanks":
        """Ranks among the rows of `proxy`."""
        columns = TeacherColumns.of(proxy)
        seen = columns.transform(proxy.rows)
        missing = np.isnan(seen)
        partly = missing.any(axis=0) & ~missing.all(axis=0)
        values = tuple(
            np.sort(column[~gone]) for column, gone in zip(seen.T, missing.T, strict=True)
        )
        return cls(columns, values, np.flatnonzero(partly))

    @property
    def num_columns(self) -> int:
        """Of what `transform` gives."""
        return len(self.values) + len(self.flagged)

    def transform(self, rows: npt.NDArray[np.float32]) -> Floats:
        """(num_rows, num_columns) within 0 to 1, of raw rows."""
        seen = self.columns.transform(rows)
        ranks = np.full(seen.shape, 0.5)
        for j, known in enumerate(self.values):
            low = np.searchsorted(known, seen[:, j], "left")
            high = np.searchsorted(known, seen[:, j], "right")
            ranks[:, j] = (low + high) / (2 * max(len(known), 1))
        missing = np.isnan(seen)
        ranks[missing] = 0.5
        joined: Floats = np.hstack([ranks, missing[:, self.flagged].astype(np.float64)])
        return joined
