"""Category columns taken apart into 0/1 columns; all others stay as they are.

A category's code has no order and no distance, so nothing may be computed from the code itself.
Every operation is elementwise: a record's columns depend on that record alone (PRIVACY rule 8).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data.schema import ColumnSchema, Kind, Schema

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """What each expanded column shows, in the order of the raw columns.

    Attributes:
        source: (num_expanded,) int64, the raw column it is made from.
        code: (num_expanded,) float32, the category code that it indicates; NaN where it is the
            raw column itself.
    """

    source: npt.NDArray[np.int64]
    code: npt.NDArray[np.float32]

    @classmethod
    def of(cls, schema: Schema) -> "Expansion":
        """One 0/1 column for each of three or more categories, and one for two: of code 1.

        Columns of other kinds, and categories that never vary, are passed through.
        """
        codes = [_codes(column) for column in schema]
        return cls(
            source=np.repeat(np.arange(len(schema)), [len(some) for some in codes]),
            code=np.array([code for some in codes for code in some], dtype=np.float32),
        )

    @property
    def is_identity(self) -> bool:
        """Whether every column is passed through."""
        return bool(np.isnan(self.code).all())

    def transform(self, rows: Rows) -> Rows:
        """Expanded rows, (num_rows, num_expanded) float32.

        Args:
            rows: (num_rows, num_columns) raw values, NaN for missing. A missing category is
                missing in each of its columns; a code that is none of the schema's is 0 in each.
        """
        if self.is_identity:
            return rows
        values = np.take(rows, self.source, axis=1)
        indicators = (values == self.code).astype(np.float32)
        return np.where(np.isnan(self.code) | np.isnan(values), values, indicators)


def _codes(column: ColumnSchema) -> list[float]:
    """The code that each expanded column of this raw column indicates."""
    num_categories = len(column.categories)
    if column.kind is not Kind.CATEGORY or num_categories < 2:
        return [np.nan]
    if num_categories == 2:
        return [1.0]
    return [float(code) for code in range(num_categories)]
