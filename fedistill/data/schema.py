"""What the columns of a proxy set mean: public, and the measure that private rows must fit.

Every column is coded as one float32, NaN where it is missing: numbers as they are, booleans as 0
and 1, dates as days since 1970-01-01 (exact to about three minutes), categories as their position
in the schema's sorted list.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a column's values are coded."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    CATEGORY = "category"
    EMPTY = "empty"
    """No proxy row has a value: whatever a private row holds is taken as missing."""


@dataclass(frozen=True, kw_only=True)
class ColumnSchema:
    """One column.

    Attributes:
        name: Its name.
        kind: How its values are coded.
        categories: The texts that codes 0, 1, ... stand for, sorted; () for other kinds.
    """

    name: str
    kind: Kind = Kind.NUMBER
    categories: tuple[str, ...] = ()


Schema = tuple[ColumnSchema, ...]


def numbers(names: Iterable[str]) -> Schema:
    """The schema of a table that holds numbers only."""
    return tuple(ColumnSchema(name=name) for name in names)
