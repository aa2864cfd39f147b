from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.data import LabelledRows, ProxySet, misfits_in_words, numbers, register_rows
from fedistill.errors import DataError


@pytest.fixture(scope="module")
def proxy(private: LabelledRows) -> ProxySet:
    return ProxySet(schema=numbers(private.columns), rows=private.rows[:20])


def refusal(rows: LabelledRows, proxy: ProxySet, **changes: int | str) -> str:
    arguments = {"num_classes": 2, "rows_at_least": 20} | changes
    with pytest.raises(DataError) as caught:
        register_rows(rows, proxy, **arguments)
    return str(caught.value)


def test_fitting_rows_are_kept_as_they_are(private: LabelledRows, proxy: ProxySet) -> None:
    rows = private.rows.copy()
    rows[3, 4] = np.nan
    registered = register_rows(replace(private, rows=rows), proxy, num_classes=2, rows_at_least=301)
    assert np.array_equal(registered.rows, rows, equal_nan=True)
    assert np.array_equal(registered.labels, private.labels)
    assert registered.num_classes == 2


@given(data=st.data())
def test_columns_in_another_order_are_brought_into_the_proxy_sets(
    private: LabelledRows, proxy: ProxySet, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(private.columns))))
    shuffled = replace(
        private,
        columns=tuple(private.columns[j] for j in order),
        rows=private.rows[:, order],
    )
    registered = register_rows(shuffled, proxy, num_classes=2, rows_at_least=20)
    assert registered.columns == proxy.columns
    assert np.array_equal(registered.rows, private.rows)
    assert registered.rows.flags.c_contiguous


def test_differing_columns_are_listed_with_the_nearest(
    private: LabelledRows, proxy: ProxySet
) -> None:
    columns = tuple({"AGE": "Age_", "SEX": "gender"}.get(name, name) for name in private.columns)
    message = refusal(replace(private, columns=columns), proxy, site="bank_a")
    assert message.startswith("site 'bank_a': columns must be the proxy set's 32, in any order")
    assert "missing 'SEX', 'AGE'" in message
    assert "unexpected 'gender', 'Age_'" in message
    columns = ("LIMIT_BALL", *private.columns[1:])
    message = refusal(replace(private, columns=columns), proxy)
    assert "is 'LIMIT_BAL' called 'LIMIT_BALL'?" in message


def test_missing_additional_and_repeated_columns(private: LabelledRows, proxy: ProxySet) -> None:
    fewer = replace(private, columns=private.columns[1:], rows=private.rows[:, 1:])
    assert "missing 'LIMIT_BAL'" in refusal(fewer, proxy)
    rows = np.column_stack([private.rows, private.rows[:, 0]])
    more = replace(private, columns=(*private.columns, "extra"), rows=rows)
    assert "unexpected 'extra'" in refusal(more, proxy)
    again = replace(private, columns=(*private.columns, "AGE"), rows=rows)
    assert "repeated 'AGE'" in refusal(again, proxy)


def test_labels_outside_the_classes(private: LabelledRows, proxy: ProxySet) -> None:
    labels = private.labels.copy()
    labels[:3] = 7
    message = refusal(replace(private, labels=labels), proxy)
    assert "label 7 in 3 rows must be in 0..1" in message
    labels[:3] = -1
    assert "label -1 in 3 rows" in refusal(replace(private, labels=labels), proxy)


def test_too_few_rows(private: LabelledRows, proxy: ProxySet) -> None:
    assert "rows=301 must be at least rows-at-least=302" in refusal(
        private, proxy, rows_at_least=302
    )


def test_infinite_values(private: LabelledRows, proxy: ProxySet) -> None:
    rows = private.rows.astype(np.float64)
    rows[0, 2] = -np.inf
    rows[1, 0] = 1e39
    message = refusal(replace(private, rows=rows), proxy)
    assert "columns 'LIMIT_BAL', 'AGE' hold infinite values" in message


def test_rows_labels_and_names_of_different_tables(private: LabelledRows, proxy: ProxySet) -> None:
    assert "must have shape (300, 32)" in refusal(
        replace(private, labels=private.labels[:300]), proxy
    )
    assert "labels of type float64 must be integers" in refusal(
        replace(private, labels=private.labels.astype(float)), proxy
    )


def with_misfits(private: LabelledRows, reasons: dict[int, str]) -> LabelledRows:
    """The rows, of which those numbered do not fit."""
    misfit = np.full(len(private.rows), "", dtype=object)
    labels = private.labels.copy()
    for i, reason in reasons.items():
        misfit[i], labels[i] = reason, -1
    return replace(private, misfit=misfit.astype(np.str_), labels=labels)


def test_misfits_are_left_out(private: LabelledRows, proxy: ProxySet) -> None:
    units = np.arange(301) // 2
    rows = replace(with_misfits(private, {0: "bad", 300: "worse"}), units=units)
    registered = register_rows(rows, proxy, num_classes=2, rows_at_least=150)
    assert np.array_equal(registered.rows, private.rows[1:300])
    assert np.array_equal(registered.labels, private.labels[1:300])
    assert registered.misfit is None
    assert registered.units is not None
    assert np.array_equal(registered.units, units[1:300])


def test_only_fitting_rows_count(private: LabelledRows, proxy: ProxySet) -> None:
    rows = with_misfits(private, {0: "bad", 300: "worse"})
    message = refusal(rows, proxy, rows_at_least=300, site="bank_a")
    assert message.startswith("site 'bank_a': rows=299 must be at least rows-at-least=300")


def test_where_rows_name_units_units_must_be_enough(private: LabelledRows, proxy: ProxySet) -> None:
    rows = replace(private, units=np.arange(301) // 100)
    message = refusal(rows, proxy, rows_at_least=5)
    assert message.startswith("units=4 must be at least rows-at-least=5: bring more units")


def test_the_most_frequent_reasons_are_said_first(private: LabelledRows) -> None:
    counts = {"one": 3, "two": 5, "three": 4, "four": 1, "five": 2, "six": 1, "seven": 1}
    reasons = [reason for reason, count in counts.items() for _ in range(count)]
    rows = with_misfits(private, dict(enumerate(reasons)))
    assert misfits_in_words(rows) == (
        "17 of 301 rows do not fit the proxy set's schema and count as nothing: "
        "two (5 rows), three (4 rows), one (3 rows), five (2 rows), four (1 row) and 2 more"
    )


def test_nothing_is_said_where_all_rows_fit(private: LabelledRows) -> None:
    assert misfits_in_words(private) == ""
    assert misfits_in_words(with_misfits(private, {})) == ""
