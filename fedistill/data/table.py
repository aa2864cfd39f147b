"""Rows with labels: a whole table, and the parts of it that keep their labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A data set as it was read.

    Attributes:
        columns: Names of the feature columns, all different.
        rows: (num_rows, num_columns) float32, finite or NaN; NaN is a missing value.
        labels: (num_rows,) int64, indices into `classes`.
        classes: At least 2 names, in the order of their indices.
        site: (num_rows,) whose row it is, or None without a site column.
        name: Shipped name, or the file's name without its suffix.
    """

    columns: tuple[str, ...]
    rows: Rows
    labels: Labels
    classes: tuple[str, ...]
    site: tuple[str, ...] | None
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledRows:
    """Rows with their labels: a site's private rows, or the test rows.

    Attributes:
        columns: Names of the feature columns.
        rows: (num_rows, num_columns) float32; NaN is a missing value.
        labels: (num_rows,) int64 in 0..num_classes-1.
        num_classes: Classes of the task; these rows need not hold all of them.
    """

    columns: tuple[str, ...]
    rows: Rows
    labels: Labels
    num_classes: int

    def take(self, index: npt.NDArray[np.intp]) -> "LabelledRows":
        """Copies of the rows at `index`, in that order."""
        return LabelledRows(
            columns=self.columns,
            rows=self.rows[index],
            labels=self.labels[index],
            num_classes=self.num_classes,
        )
