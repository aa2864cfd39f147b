"""Columns as a file stores them, before any of them has a role or a schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.data.schema import Kind
from fedistill.data.texts import clean, spelling

Index = npt.NDArray[np.intp]
Positions = npt.NDArray[np.int64]

_KINDS = {"b": Kind.BOOLEAN, "i": Kind.NUMBER, "u": Kind.NUMBER, "f": Kind.NUMBER}


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column, whatever the file's format.

    Attributes:
        kind: How the file stores it: numbers, booleans, dates, or `CATEGORY` for any text; None
            where it holds something that no schema knows.
        values: (num_rows,) numbers; booleans as 0 and 1; dates as days since 1970-01-01; for text
            the positions in `texts`. NaN, or position -1, where a value is missing.
        texts: The texts of a text column without surrounding blanks.
        stored_as: The column's type as its format calls it.
    """

    kind: Kind | None
    values: npt.NDArray[Any]
    texts: Sequence[str] = ()
    stored_as: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> "Column":
        """The column of an array of numbers, booleans or strings, (num_rows,)."""
        stored_as = str(values.dtype)
        if values.dtype.kind == "U":
            texts, positions = np.unique(values, return_inverse=True)
            return cls.of_text(positions, texts.tolist(), stored_as)
        kind = _KINDS[values.dtype.kind]
        numbers = values.astype(np.float64) if kind is Kind.BOOLEAN else values
        return cls(kind=kind, values=numbers, stored_as=stored_as)

    @classmethod
    def of_text(cls, positions: Index, texts: Sequence[str | None], stored_as: str) -> "Column":
        """The column of these texts, of which some may spell a missing value."""
        cleaned = [clean(text or "") for text in texts]
        lookup = np.array([k if text else -1 for k, text in enumerate(cleaned)], dtype=np.int64)
        known = lookup[positions] if len(lookup) else np.empty(0, dtype=np.int64)
        return cls(kind=Kind.CATEGORY, values=known, texts=cleaned, stored_as=stored_as)

    def missing(self) -> npt.NDArray[np.bool_]:
        """(num_rows,) where there is no value."""
        return self.values < 0 if self.kind is Kind.CATEGORY else np.isnan(self.values)

    def take(self, index: Index) -> "Column":
        """The rows at `index`, in that order."""
        return Column(
            kind=self.kind,
            values=self.values[index],
            texts=self.texts,
            stored_as=self.stored_as,
        )

    def spelled(self) -> tuple[Positions, list[str]]:
        """Its values as texts.

        Returns:
            (num_rows,) positions in the texts, -1 where a value is missing; and the texts that
            occur, in the order of the values they spell. Texts can repeat.
        """
        kind = self.kind
        if kind is None:
            raise TypeError(f"a column of type {self.stored_as} cannot be spelled")
        here = ~self.missing()
        distinct, inverse = np.unique(self.values[here], return_inverse=True)
        positions = np.full(len(self.values), -1, dtype=np.int64)
        positions[here] = inverse
        if kind is Kind.CATEGORY:
            return positions, [self.texts[k] for k in distinct]
        return positions, [spelling(value, kind) for value in distinct]
