"""What proxy rows make of a column, and how rows are coded by that."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedistill.data import (
    Column,
    ColumnSchema,
    Kind,
    Table,
    code_rows,
    code_table,
    infer_schema,
    misfits_in_words,
    numbers,
)
from fedistill.data.arrow import _columns as columns_of_arrow
from fedistill.errors import DataError
from tests.data.tables import columns

NAN = float("nan")
CITY = ColumnSchema(name="x", kind=Kind.CATEGORY, categories=("3", "Bonn", "Ulm", "true"))


def kind_of(*values: Any) -> Kind:
    return infer(*values).kind


def infer(*values: Any) -> ColumnSchema:
    (found,) = infer_schema(columns(x=list(values)), np.arange(len(values)))
    return found


def coded(schema: ColumnSchema, values: Column) -> list[float]:
    """The codes of a column; what does not fit is infinite."""
    rows, misfit = code_rows({"x": values}, (schema,), np.arange(len(values)))
    assert np.isnan(rows[misfit != "", 0]).all()
    return np.where(misfit == "", rows[:, 0], np.inf).tolist()


def same(found: list[float], expected: list[float]) -> bool:
    return np.array_equal(found, expected, equal_nan=True)


def of(kind: Kind) -> ColumnSchema:
    return ColumnSchema(name="x", kind=kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, 2), Kind.NUMBER),
        ((0.5, NAN), Kind.NUMBER),
        ((True, False), Kind.BOOLEAN),
        (("1", "2.5", ""), Kind.NUMBER),
        (("1e3", "-.5", "0x1F"), Kind.NUMBER),
        (("true", "FALSE", "?"), Kind.BOOLEAN),
        (("1", "true"), Kind.CATEGORY),
        (("2020-01-31", "1999-12-01T10:30:00Z"), Kind.DATE),
        (("2020-01-31", "2020-02-30"), Kind.CATEGORY),
        (("Ulm", "Bonn"), Kind.CATEGORY),
        (("1_0",), Kind.CATEGORY),
        (("", "?"), Kind.EMPTY),
        ((NAN, NAN), Kind.EMPTY),
    ],
)
def test_the_kind_of_a_column_follows_from_its_values(values: Any, kind: Kind) -> None:
    assert kind_of(*values) is kind


def test_categories_are_sorted_and_spelled_in_one_way() -> None:
    assert infer(" Ulm", "Bonn", "", "3.0", "03", "True").categories == CITY.categories


def test_only_proxy_rows_decide_the_schema() -> None:
    table = columns(city=["Ulm", "Bonn", "Rome"], age=["1", "2", "old"], gone=["", "", "here"])
    schema = infer_schema(table, np.array([1, 0]))
    assert [column.kind for column in schema] == [Kind.CATEGORY, Kind.NUMBER, Kind.EMPTY]
    assert schema[0].categories == ("Bonn", "Ulm")


def test_too_many_categories_are_refused_with_the_remedy() -> None:
    texts = [f"patient {i}" for i in range(101)]
    with pytest.raises(DataError) as caught:
        infer(*texts)
    message = str(caught.value)
    assert message.startswith("column 'x' holds 101 different texts in the proxy rows")
    assert "must have at most 100: name it in ignore-columns" in message
    assert len(infer(*texts[:100]).categories) == 100


@pytest.mark.parametrize("values", [(1.0, np.inf), (1, 1e39), ("1", "-inf"), ("1", "1e39")])
def test_infinite_proxy_values_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match=r"column 'x' holds .* in 1 proxy rows, and values must be"):
        infer(*values)


@pytest.mark.parametrize(
    ("schema", "values", "expected"),
    [
        (of(Kind.NUMBER), [1, -2], [1, -2]),
        (of(Kind.NUMBER), [0.5, NAN, np.inf, 1e39], [0.5, NAN, np.inf, np.inf]),
        (of(Kind.NUMBER), [True, False], [1, 0]),
        (of(Kind.NUMBER), ["2.5", "", "old", "nan", "1e39"], [2.5, NAN, np.inf, NAN, np.inf]),
        (of(Kind.BOOLEAN), [True, False], [1, 0]),
        (of(Kind.BOOLEAN), [1, 0, 2, NAN], [1, 0, np.inf, NAN]),
        (of(Kind.BOOLEAN), ["True", "0", "1.0", "yes", "?"], [1, 0, 1, np.inf, NAN]),
        (of(Kind.DATE), ["1970-01-02", "1970-01-01 12:00", "1969-12-31"], [1, 0.5, -1]),
        (of(Kind.DATE), ["1970-01-02T01:00:00+01:00", "2020-02-30"], [1, np.inf]),
        (of(Kind.DATE), ["20200101", "soon", "N/A"], [np.inf, np.inf, NAN]),
        (of(Kind.DATE), [2020.0, NAN], [np.inf, NAN]),
        (CITY, ["Ulm", "Bonn ", "ulm", "", "3.00"], [2, 1, np.inf, NAN, 0]),
        (CITY, [3.0, 4.0, NAN], [0, np.inf, NAN]),
        (CITY, [True, False], [3, np.inf]),
        (of(Kind.EMPTY), ["Ulm", ""], [NAN, NAN]),
        (of(Kind.EMPTY), [5.0, np.inf], [NAN, NAN]),
    ],
)
def test_values_are_coded_by_the_schema(
    schema: ColumnSchema, values: list[Any], expected: list[float]
) -> None:
    assert same(coded(schema, Column.of(np.array(values))), expected)


def test_stored_dates_are_coded_as_their_texts_are() -> None:
    days = pa.array([0, 18_262, None], pa.int32()).cast(pa.date32())
    ((_, stored),) = columns_of_arrow(pa.table({"x": days}))
    assert same(coded(of(Kind.DATE), stored), [0, 18_262, NAN])
    named = ColumnSchema(name="x", kind=Kind.CATEGORY, categories=("2020-01-01",))
    assert same(coded(named, stored), [np.inf, 0, NAN])
    assert same(coded(of(Kind.NUMBER), stored), [np.inf, np.inf, NAN])


def test_single_precision_is_spelled_as_it_was_written() -> None:
    half = ColumnSchema(name="x", kind=Kind.CATEGORY, categories=("0.1", "16777216"))
    assert coded(half, Column.of(np.array([0.1, 2**24], dtype=np.float32))) == [0, 1]


def private_table(labels: list[int], **values: list[Any]) -> Table:
    return Table(
        columns=columns(**values), labels=np.array(labels), classes=("a", "b"), name="made"
    )


def test_a_misfit_has_no_label_and_says_why() -> None:
    table = private_table([0, 1, -1, 1], city=["Ulm", "Rome", "Ulm", ""], age=[1, np.inf, 2, 3])
    schema = (ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Ulm",)), *numbers(["age"]))
    rows = code_table(table, schema)
    assert rows.misfit is not None
    assert rows.misfit.tolist() == ["", "column 'city' holds 'Rome'", "label is missing", ""]
    assert rows.labels.tolist() == [0, -1, -1, 1]
    assert same(rows.rows.ravel().tolist(), [0, 1, NAN, NAN, 0, 2, NAN, 3])
    assert misfits_in_words(rows) == (
        "2 of 4 rows do not fit the proxy set's schema and count as nothing: "
        "column 'city' holds 'Rome' (1 row), label is missing (1 row)"
    )


def test_long_texts_are_cut_in_messages() -> None:
    table = private_table([0], age=["x" * 1000])
    rows = code_table(table, numbers(["age"]))
    assert rows.misfit is not None
    assert rows.misfit.tolist() == [f"column 'age' holds '{'x' * 37}...'"]


def test_columns_are_brought_into_the_schemas_order() -> None:
    table = private_table([0], a=[1], b=[2])
    rows = code_table(table, numbers(["b", "a"]))
    assert rows.columns == ("b", "a")
    assert rows.rows.tolist() == [[2, 1]]
    with pytest.raises(DataError, match=r"missing 'c'.* unexpected 'b'"):
        code_table(table, numbers(["a", "c"]))
