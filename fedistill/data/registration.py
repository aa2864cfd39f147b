"""The owner's checks of private rows, run on the owner's machine before anything is sent.

Whether a site is eligible is decided here and nowhere later: at run time a mechanism is total, and
nothing about private rows may be learned from its errors. The messages of this module depend on
private rows and stay with their owner.
"""

import numpy as np

from fedistill.data.proxy import ProxySet
from fedistill.data.table import LabelledRows
from fedistill.data.wording import listing, nearest, repeated
from fedistill.errors import DataError


def register_rows(
    rows: LabelledRows,
    proxy: ProxySet,
    *,
    num_classes: int,
    rows_at_least: int,
    site: str = "",
) -> LabelledRows:
    """Private rows in the column order of the proxy set, checked.

    Args:
        rows: The owner's private rows.
        proxy: The public proxy set that the owner approves.
        num_classes: Classes of the task, public.
        rows_at_least: The site's public lower bound on its rows.
        site: Whose rows these are, for the message; "" leaves it out.

    Raises:
        DataError: Columns differ from the proxy set's, a label is not in 0..num_classes-1, there
            are fewer rows than `rows_at_least`, or a value is infinite.
    """
    whose = f"site {site!r}: " if site else ""
    _check_shape(rows, whose)
    _check_columns(rows.columns, proxy.columns, whose)
    if len(rows.rows) < rows_at_least:
        raise DataError(
            f"{whose}rows={len(rows.rows)} must be at least rows-at-least={rows_at_least}: bring "
            "more rows, use fewer sites, or declare a smaller rows-at-least"
        )
    outside = (rows.labels < 0) | (rows.labels >= num_classes)
    if outside.any():
        raise DataError(
            f"{whose}label {int(rows.labels[outside][0])} in {int(outside.sum())} rows must be in "
            f"0..{num_classes - 1}: register rows of the {num_classes} agreed classes only"
        )
    with np.errstate(over="ignore"):
        values = rows.rows.astype(np.float32)
    infinite = np.isinf(values).any(axis=0)
    if infinite.any():
        names = listing(rows.columns[j] for j in np.flatnonzero(infinite))
        raise DataError(
            f"{whose}columns {names} hold infinite values, and values must be finite or NaN: use "
            "NaN for missing values"
        )
    position = {name: j for j, name in enumerate(rows.columns)}
    index = [position[name] for name in proxy.columns]
    return LabelledRows(
        columns=proxy.columns,
        rows=np.ascontiguousarray(values[:, index]),
        labels=rows.labels.astype(np.int64),
        num_classes=num_classes,
    )


def _check_shape(rows: LabelledRows, whose: str) -> None:
    expected = (len(rows.labels), len(rows.columns))
    if rows.labels.ndim != 1 or rows.rows.shape != expected:
        raise DataError(
            f"{whose}rows of shape {rows.rows.shape} must have shape {expected}, one row for each "
            "label and one column for each name: register rows, labels and names of one table"
        )
    if not np.issubdtype(rows.labels.dtype, np.integer):
        raise DataError(
            f"{whose}labels of type {rows.labels.dtype} must be integers: use class indices"
        )


def _check_columns(columns: tuple[str, ...], expected: tuple[str, ...], whose: str) -> None:
    given, wanted = set(columns), set(expected)
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in columns if name not in wanted]
    twice = repeated(columns)
    complaints = []
    if missing:
        complaints.append(f"missing {_first_missing(missing, unexpected)}")
    if unexpected:
        complaints.append(f"unexpected {listing(unexpected)}")
    if twice:
        complaints.append(f"repeated {listing(twice)}")
    if complaints:
        raise DataError(
            f"{whose}columns must be the proxy set's {len(expected)}, in any order: "
            f"{'; '.join(complaints)}: rename, add or drop columns until they agree"
        )


def _first_missing(missing: list[str], unexpected: list[str]) -> str:
    """The missing names, the first one with the unexpected name that it may go by."""
    found = nearest(missing[0], unexpected)
    return listing(missing) + (f" (is {missing[0]!r} called {found!r}?)" if found else "")
