"""What the summary says of a proxy set's columns."""

import numpy as np

from fedistill.data import ColumnSchema, Kind, ProxySet, numbers
from fedistill.data.description import describe_columns, kinds_in_words


def described(kind: Kind, codes: list[float], categories: tuple[str, ...] = ()):
    schema = (ColumnSchema(name="it", kind=kind, categories=categories),)
    rows = np.array(codes, np.float32).reshape(-1, 1)
    return describe_columns(ProxySet(schema=schema, rows=rows))[0]


def test_numbers_have_a_range_and_a_median() -> None:
    it = described(Kind.NUMBER, [1, 2, 30, np.nan])
    assert (it.name, it.kind, it.missing, it.values) == (
        "it",
        "number",
        "25%",
        "1 to 30, median 2",
    )


def test_booleans_have_a_share() -> None:
    assert described(Kind.BOOLEAN, [0, 0, 0, 1]).values == "true in 25%"


def test_dates_are_dates_again() -> None:
    assert described(Kind.DATE, [0, 365, 20_000]).values == "1970-01-01 to 2024-10-04"


def test_the_most_frequent_categories_are_named() -> None:
    it = described(Kind.CATEGORY, [4, 4, 4, 3, 3, 2, 1, 0], tuple("abcde"))
    assert it.values == "e 38%, d 25%, a 12%, b 12%, 1 more"


def test_a_column_without_values_has_none() -> None:
    it = described(Kind.EMPTY, [np.nan, np.nan])
    assert (it.kind, it.missing, it.values) == ("empty", "100%", "")


def test_few_are_not_called_none_and_most_not_all() -> None:
    assert described(Kind.BOOLEAN, [1] + [0] * 999).values == "true in <1%"
    assert described(Kind.NUMBER, [np.nan] * 999 + [1]).missing == ">99%"


def test_kinds_are_counted_in_words() -> None:
    mixed = (*numbers("ab"), ColumnSchema(name="c", kind=Kind.CATEGORY, categories=("x",)))
    assert kinds_in_words(mixed) == "2 numbers and 1 category"
    assert kinds_in_words(numbers("a")) == "1 number"
    more = (*mixed, ColumnSchema(name="d", kind=Kind.DATE), ColumnSchema(name="e", kind=Kind.DATE))
    assert kinds_in_words(more) == "2 numbers, 2 dates and 1 category"
