"""Rows with labels: a whole table, and the parts of it that keep their labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data.columns import Column

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A data set as it was read: what its columns mean is decided later, by its proxy rows.

    Attributes:
        columns: Feature columns by name, (num_rows,) each.
        labels: (num_rows,) int64, indices into `classes`; -1 where a row has no label.
        classes: At least 2 names, in the order of their indices.
        name: Shipped name, or the file's name without its suffix.
        site: (num_rows,) whose row it is, or None without a site column.
        units: (num_rows,) int64 codes of whom a row is about, or None without a unit column.
        unlabelled: (num_rows,) why a row has no label, "" where it has one; None where all such
            labels are missing.
    """

    columns: Mapping[str, Column]
    labels: Labels
    classes: tuple[str, ...]
    name: str
    site: tuple[str, ...] | None = None
    units: Labels | None = None
    unlabelled: npt.NDArray[np.str_] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledRows:
    """Rows with their labels: a site's private rows, or the test rows.

    Attributes:
        columns: Names of the feature columns.
        rows: (num_rows, num_columns) float32 codes; NaN is a missing value.
        labels: (num_rows,) int64 in 0..num_classes-1; -1 for a misfit.
        num_classes: Classes of the task; these rows need not hold all of them.
        misfit: (num_rows,) why a row does not fit the proxy set's schema, "" where it does; None
            where all do.
        units: (num_rows,) int64 codes of whom a row is about; None where each row is about
            somebody else.
    """

    columns: tuple[str, ...]
    rows: Rows
    labels: Labels
    num_classes: int
    misfit: npt.NDArray[np.str_] | None = None
    units: Labels | None = None

    @property
    def num_units(self) -> int:
        """Whom the rows are about, counted; without `units` each row is about somebody else."""
        return len(self.rows) if self.units is None else len(np.unique(self.units))

    def take(self, index: npt.NDArray[np.intp]) -> "LabelledRows":
        """Copies of the rows at `index`, in that order."""
        return LabelledRows(
            columns=self.columns,
            rows=self.rows[index],
            labels=self.labels[index],
            num_classes=self.num_classes,
            misfit=None if self.misfit is None else self.misfit[index],
            units=None if self.units is None else self.units[index],
        )
