"""Whom rows are about: all rows of a unit go the same way."""

from dataclasses import dataclass

import numpy as np

from fedistill.data.columns import Index
from fedistill.data.table import Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The units of some rows, numbered in the order of their first rows.

    Attributes:
        first: (num_units,) each unit's first row.
        by_unit: (num_rows,) the rows, those of the first unit first.
        starts: (num_units + 1,) where each unit starts in `by_unit`.
    """

    first: Index
    by_unit: Index
    starts: Index

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, codes: Labels | None, num_rows: int) -> "Units":
        """Units of rows by their codes, (num_rows,); None makes each row a unit."""
        if codes is None:
            rows = np.arange(num_rows)
            return cls(first=rows, by_unit=rows, starts=np.arange(num_rows + 1))
        _, first, code, counts = np.unique(
            codes, return_index=True, return_inverse=True, return_counts=True
        )
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return cls(
            first=first[order],
            by_unit=np.argsort(rank[code], kind="stable"),
            starts=np.concatenate([[0], np.cumsum(counts[order])]),
        )

    def rows(self, units: Index) -> Index:
        """The rows of these units, unit by unit."""
        sizes = np.diff(self.starts)[units]
        shift = np.repeat(self.starts[units] - np.cumsum(sizes) + sizes, sizes)
        return self.by_unit[shift + np.arange(len(shift))]
