"""The fixed split of a table into public proxy rows, public test rows and private rows.

The split is the same for every run on the same table, and no seed reaches it: figures of different
runs, seeds and mechanisms are paired, and no choice of a seed can pick a lucky test set.
"""

from dataclasses import dataclass

import numpy as np

from fedistill.data.coding import code_rows, code_table, infer_schema
from fedistill.data.columns import Index
from fedistill.data.proxy import ProxySet
from fedistill.data.registration import misfits_in_words
from fedistill.data.table import LabelledRows, Table
from fedistill.data.units import Units
from fedistill.data.wording import listing
from fedistill.errors import DataError

_FEWEST_ROWS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Three disjoint parts that together are the table.

    Attributes:
        proxy: Public rows whose labels were dropped.
        test: Public rows with labels; they only score, and no site holds one of them.
        private: Rows of all sites together, misfits among them.
        test_site: (num_test,) whose row it is, or None without a site column.
        private_site: (num_private,) likewise.
    """

    proxy: ProxySet
    test: LabelledRows
    private: LabelledRows
    test_site: tuple[str, ...] | None
    private_site: tuple[str, ...] | None


def split_table(table: Table, *, proxy_fraction: float, test_fraction: float) -> Split:
    """Cut a table into proxy, test and private rows.

    Units, in the order of their first rows, are ordered anew by
    `numpy.random.default_rng(0).permutation`; the first `int(proxy_fraction * num_units)` give the
    proxy rows, the next `int(test_fraction * num_units)` the test rows, the rest is private.
    Without a unit column each row is a unit.

    The proxy rows alone decide the schema. A value of a test row that does not fit it is missing,
    and a test row without a label is left out; a private row that does not fit is a misfit.

    Raises:
        DataError: A part has fewer than 10 rows, the test or private rows lack a class, or the
            proxy rows make no schema.
    """
    proxy, test, private = cut_table(table, proxy_fraction, test_fraction)
    schema = infer_schema(table.columns, proxy)
    test = test[table.labels[test] >= 0]
    split = Split(
        proxy=ProxySet(schema=schema, rows=code_rows(table.columns, schema, proxy)[0]),
        test=LabelledRows(
            columns=tuple(table.columns),
            rows=code_rows(table.columns, schema, test)[0],
            labels=table.labels[test],
            num_classes=len(table.classes),
            units=None if table.units is None else table.units[test],
        ),
        private=code_table(table, schema, private),
        test_site=_sites(table, test),
        private_site=_sites(table, private),
    )
    fractions = _fractions(proxy_fraction, test_fraction)
    _check_classes(split.test, table, f"test-fraction={test_fraction}", "test", "raise it")
    _check_classes(split.private, table, fractions, "private", "lower them")
    return split


def cut_table(
    table: Table, proxy_fraction: float, test_fraction: float
) -> tuple[Index, Index, Index]:
    """Proxy, test and private rows by index, in the order of the split; no unit is in two of them.

    Raises:
        DataError: A part has fewer than 10 rows.
    """
    num_rows = len(table.labels)
    units = Units.of(table.units, num_rows)
    num_proxy, num_test = int(proxy_fraction * len(units)), int(test_fraction * len(units))
    order = np.random.default_rng(0).permutation(len(units))
    first, second, third = (
        units.rows(part) for part in np.split(order, [num_proxy, num_proxy + num_test])
    )
    for part, field, index in (
        ("proxy", f"proxy-fraction={proxy_fraction}", first),
        ("test", f"test-fraction={test_fraction}", second),
        ("private", _fractions(proxy_fraction, test_fraction), third),
    ):
        if len(index) < _FEWEST_ROWS:
            advice = "lower the fractions" if part == "private" else "raise the fraction"
            raise DataError(
                f"{field} of {num_rows} rows gives {len(index)} {part} rows, which must be at "
                f"least {_FEWEST_ROWS}: {advice} or bring more rows"
            )
    return first, second, third


def _sites(table: Table, index: Index) -> tuple[str, ...] | None:
    return None if table.site is None else tuple(table.site[i] for i in index)


def _fractions(proxy_fraction: float, test_fraction: float) -> str:
    return f"proxy-fraction={proxy_fraction} and test-fraction={test_fraction}"


def _check_classes(rows: LabelledRows, table: Table, field: str, part: str, advice: str) -> None:
    absent = np.setdiff1d(np.arange(rows.num_classes), rows.labels)
    misfits = int((rows.labels < 0).sum())
    if len(absent) and misfits > len(rows.labels) // 2:
        raise DataError(
            f"{misfits_in_words(rows)}: more than half of the {part} rows must fit what the proxy "
            "rows declare: name columns of free text or identifiers in ignore-columns, or raise "
            "proxy-fraction"
        )
    if len(absent):
        names = listing(table.classes[k] for k in absent)
        raise DataError(
            f"{field} gives {len(rows.labels)} {part} rows without class {names}, and they must "
            f"hold every class: {advice}, or merge or remove rare classes"
        )
