"""The fixed split of a table into public proxy rows, public test rows and private rows.

The split is the same for every run on the same table, and no seed reaches it: figures of different
runs, seeds and mechanisms are paired, and no choice of a seed can pick a lucky test set.
"""

from dataclasses import dataclass

import numpy as np

from fedistill.data.proxy import ProxySet
from fedistill.data.table import LabelledRows, Table
from fedistill.data.wording import listing
from fedistill.errors import DataError

_FEWEST_ROWS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Three disjoint parts that together are the table.

    Attributes:
        proxy: Public rows whose labels were dropped.
        test: Public rows with labels; they only score, and no site holds one of them.
        private: Rows of all sites together.
        private_site: (num_private,) whose row it is, or None without a site column.
    """

    proxy: ProxySet
    test: LabelledRows
    private: LabelledRows
    private_site: tuple[str, ...] | None


def split_table(table: Table, *, proxy_fraction: float, test_fraction: float) -> Split:
    """Cut a table into proxy, test and private rows.

    Rows are ordered by `numpy.random.default_rng(0).permutation`; the first
    `int(proxy_fraction * num_rows)` are proxy rows, the next `int(test_fraction * num_rows)` test
    rows, the rest is private.

    Raises:
        DataError: A part has fewer than 10 rows, or the test or private rows lack a class.
    """
    num_rows = len(table.rows)
    num_proxy, num_test = int(proxy_fraction * num_rows), int(test_fraction * num_rows)
    num_private = num_rows - num_proxy - num_test
    fractions = f"proxy-fraction={proxy_fraction} and test-fraction={test_fraction}"
    for part, field, size in (
        ("proxy", f"proxy-fraction={proxy_fraction}", num_proxy),
        ("test", f"test-fraction={test_fraction}", num_test),
        ("private", fractions, num_private),
    ):
        if size < _FEWEST_ROWS:
            advice = "lower the fractions" if part == "private" else "raise the fraction"
            raise DataError(
                f"{field} of {num_rows} rows gives {max(size, 0)} {part} rows, which must be at "
                f"least {_FEWEST_ROWS}: {advice} or bring more rows"
            )
    order = np.random.default_rng(0).permutation(num_rows)
    proxy, test, private = np.split(order, [num_proxy, num_proxy + num_test])
    everything = LabelledRows(
        columns=table.columns,
        rows=table.rows,
        labels=table.labels,
        num_classes=len(table.classes),
    )
    split = Split(
        proxy=ProxySet(columns=table.columns, rows=table.rows[proxy]),
        test=everything.take(test),
        private=everything.take(private),
        private_site=None if table.site is None else tuple(table.site[i] for i in private),
    )
    _check_classes(split.test, table, f"test-fraction={test_fraction}", "test", "raise it")
    _check_classes(split.private, table, fractions, "private", "lower them")
    return split


def _check_classes(rows: LabelledRows, table: Table, field: str, part: str, advice: str) -> None:
    absent = np.setdiff1d(np.arange(rows.num_classes), rows.labels)
    if len(absent):
        names = listing(table.classes[k] for k in absent)
        raise DataError(
            f"{field} gives {len(rows.labels)} {part} rows without class {names}, and they must "
            f"hold every class: {advice}, or merge or remove rare classes"
        )
