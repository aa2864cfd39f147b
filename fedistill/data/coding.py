"""Typed columns as float32 codes, by a schema that the public proxy rows alone decide.

How a row is coded depends on that row and the public schema. A value that the schema does not know
makes its row a misfit; it never changes the schema, and no other row's coding.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedistill.data.columns import Column, Index
from fedistill.data.roles import MISSING_LABEL
from fedistill.data.schema import ColumnSchema, Kind, Schema
from fedistill.data.table import LabelledRows, Rows, Table
from fedistill.data.texts import boolean, category, date, number
from fedistill.data.wording import check_names, listing, shown
from fedistill.errors import DataError

MOST_CATEGORIES = 100

Misfit = npt.NDArray[np.str_]


def infer_schema(columns: Mapping[str, Column], index: Index) -> Schema:
    """What the columns mean, judged by the rows at `index` alone.

    Text is numbers, booleans or ISO dates where all of these rows' texts are; else categories.

    Args:
        columns: Columns by name, of types that `check_types` accepts.
        index: The public proxy rows.

    Raises:
        DataError: A text column has more than 100 categories, or a number is infinite in float32.
    """
    return tuple(_infer(name, column.take(index)) for name, column in columns.items())


def code_rows(columns: Mapping[str, Column], schema: Schema, index: Index) -> tuple[Rows, Misfit]:
    """The rows at `index`, coded as the schema says.

    Args:
        columns: Columns by name, at least those of the schema; they may be stored in other types.
        schema: The public schema.
        index: The rows to code.

    Returns:
        (len(index), num_columns) float32 in the schema's order, NaN where a value is missing or
        does not fit; and (len(index),) the first value that does not fit, in words, "" where all
        of the row's values do.
    """
    rows = np.empty((len(index), len(schema)), dtype=np.float32)
    misfit = np.full(len(index), "", dtype=object)
    for j, expected in enumerate(schema):
        column = columns[expected.name].take(index)
        codes = _codes(column, expected)
        bad = np.isinf(codes)
        codes[bad] = np.nan
        rows[:, j] = codes
        first = np.flatnonzero(bad & (misfit == ""))
        if len(first):
            positions, texts = column.take(first).spelled()
            reasons = [f"column {expected.name!r} holds {shown(category(text))}" for text in texts]
            misfit[first] = np.array(reasons, dtype=object)[positions]
    return rows, misfit.astype(np.str_)


def code_table(table: Table, schema: Schema, index: Index | None = None) -> LabelledRows:
    """A table's private rows, coded as the schema says; misfits have label -1.

    Args:
        table: An owner's table.
        schema: The public schema of the proxy set.
        index: The rows to code; None takes all.

    Raises:
        DataError: The table's columns are not the schema's.
    """
    check_names(table.columns, tuple(column.name for column in schema), "")
    index = np.arange(len(table.labels)) if index is None else index
    rows, misfit = code_rows(table.columns, schema, index)
    labels = table.labels[index]
    if table.unlabelled is None:
        unlabelled = np.where(labels < 0, MISSING_LABEL, "")
    else:
        unlabelled = table.unlabelled[index]
    misfit = np.where(misfit == "", unlabelled, misfit)
    return LabelledRows(
        columns=tuple(column.name for column in schema),
        rows=rows,
        labels=np.where(misfit == "", labels, -1),
        num_classes=len(table.classes),
        misfit=misfit,
        units=None if table.units is None else table.units[index],
    )


def check_types(columns: Mapping[str, Column]) -> None:
    """Refuse columns that no schema can describe.

    Raises:
        DataError: Names the column, its type and the remedy.
    """
    for name, column in columns.items():
        if column.kind is None:
            advice = ", or save the file as UTF-8" if column.stored_as == "binary" else ""
            raise DataError(
                f"column {name!r} holds values of type {column.stored_as}, and feature columns "
                f"must be numbers, booleans, dates or text: name it in ignore-columns{advice}"
            )


def _infer(name: str, column: Column) -> ColumnSchema:
    """The schema of one column, of proxy rows only."""
    if column.missing().all():
        return ColumnSchema(name=name, kind=Kind.EMPTY)
    found = ColumnSchema(name=name, kind=column.kind or Kind.EMPTY)
    if column.kind is Kind.CATEGORY:
        found = _infer_text(name, column)
    if found.kind is Kind.NUMBER:
        _check_finite(found, column)
    return found


def _infer_text(name: str, column: Column) -> ColumnSchema:
    _, texts = column.spelled()
    for kind, parse in ((Kind.NUMBER, number), (Kind.BOOLEAN, boolean), (Kind.DATE, date)):
        if all(parse(text) is not None for text in texts):
            return ColumnSchema(name=name, kind=kind)
    categories = tuple(sorted({category(text) for text in texts}))
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"column {name!r} holds {len(categories)} different texts in the proxy rows "
            f"({listing(categories[:3])}, ...), and a column of categories must have at most "
            f"{MOST_CATEGORIES}: name it in ignore-columns, or put its texts into groups"
        )
    return ColumnSchema(name=name, kind=Kind.CATEGORY, categories=categories)


def _check_finite(schema: ColumnSchema, column: Column) -> None:
    infinite = np.isinf(_codes(column, schema))
    if infinite.any():
        _, texts = column.take(np.flatnonzero(infinite)).spelled()
        raise DataError(
            f"column {schema.name!r} holds {texts[0]} in {int(infinite.sum())} proxy rows, and "
            f"values must be finite and at most {np.finfo(np.float32).max:.3g}: leave missing "
            "values empty or NaN, and scale the column"
        )


def _codes(column: Column, schema: ColumnSchema) -> npt.NDArray[np.float32]:
    """(num_rows,) codes: NaN where a value is missing, infinite where it does not fit."""
    if schema.kind is Kind.EMPTY:
        return np.full(len(column), np.nan, dtype=np.float32)
    if column.kind is schema.kind and column.kind is not Kind.CATEGORY:
        codes = column.values.astype(np.float64)
    else:
        positions, texts = column.spelled()
        known = {text: k for k, text in enumerate(schema.categories)}
        lookup = [_code_of_text(text, schema, known) for text in texts]
        codes = np.array([*lookup, np.nan])[positions]
    with np.errstate(over="ignore"):
        return codes.astype(np.float32)


def _code_of_text(text: str, schema: ColumnSchema, known: Mapping[str, int]) -> float:
    """The code of one text, infinite where it does not fit."""
    code: float | None
    if schema.kind is Kind.CATEGORY:
        code = known.get(category(text))
    elif schema.kind is Kind.DATE:
        code = date(text)
    else:
        value = number(text)
        code = boolean(text) if value is None else value
        if schema.kind is Kind.BOOLEAN and code not in (0, 1):
            code = None
    return np.inf if code is None else code
