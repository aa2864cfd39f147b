"""What was read, in words: the columns of a proxy set, as its public rows declare them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fedistill.data.proxy import ProxySet
from fedistill.data.schema import ColumnSchema, Kind, Schema
from fedistill.data.table import Rows

_CATEGORIES_SHOWN = 4
_PLURALS = {
    Kind.NUMBER: ("number", "numbers"),
    Kind.BOOLEAN: ("boolean", "booleans"),
    Kind.DATE: ("date", "dates"),
    Kind.CATEGORY: ("category", "categories"),
    Kind.EMPTY: ("empty column", "empty columns"),
}


@dataclass(frozen=True, kw_only=True)
class ColumnDescription:
    """One column in words: its name, its kind, the share of missing proxy rows, its values."""

    name: str
    kind: str
    missing: str
    values: str


def describe_columns(proxy: ProxySet) -> tuple[ColumnDescription, ...]:
    """Every column of the proxy set; of public rows alone."""
    return tuple(
        ColumnDescription(
            name=column.name,
            kind=str(column.kind),
            missing=_share(float(np.isnan(proxy.rows[:, j]).mean())),
            values=_values(column, proxy.rows[:, j]),
        )
        for j, column in enumerate(proxy.schema)
    )


def kinds_in_words(schema: Schema) -> str:
    """How many columns there are of each kind: `20 booleans, 7 numbers and 1 category`."""
    counts = Counter(column.kind for column in schema).most_common()
    parts = [f"{count} {_PLURALS[kind][count != 1]}" for kind, count in counts]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _values(column: ColumnSchema, codes: Rows) -> str:
    present = codes[~np.isnan(codes)]
    if len(present) == 0:
        return ""
    if column.kind is Kind.CATEGORY:
        return _categories(column, present)
    if column.kind is Kind.BOOLEAN:
        return f"true in {_share(float(present.mean()))}"
    low, middle, high = (float(np.quantile(present, share)) for share in (0, 0.5, 1))
    if column.kind is Kind.DATE:
        first, last = (str(np.datetime64(int(day), "D")) for day in (low, high))
        return f"{first} to {last}"
    return f"{low:.4g} to {high:.4g}, median {middle:.4g}"


def _categories(column: ColumnSchema, present: Rows) -> str:
    """The most frequent categories, and how many more there are."""
    counts = np.bincount(present.astype(np.int64), minlength=len(column.categories))
    order = np.argsort(-counts, kind="stable")[:_CATEGORIES_SHOWN]
    shown = ", ".join(f"{column.categories[k]} {_share(counts[k] / len(present))}" for k in order)
    more = len(column.categories) - len(order)
    return f"{shown}, {more} more" if more else shown


def _share(share: float) -> str:
    """A share in percent; only none is `0%` and only all is `100%`."""
    percent = round(100 * share)
    if share > 0 and percent == 0:
        return "<1%"
    return ">99%" if share < 1 and percent == 100 else f"{percent}%"
