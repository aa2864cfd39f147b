"""The owner's checks of private rows, run on the owner's machine before anything is sent.

Whether a site is eligible is decided here and nowhere later: at run time a mechanism is total, and
nothing about private rows may be learned from its errors. The messages of this module depend on
private rows and stay with their owner.
"""

from collections import Counter

import numpy as np

from fedistill.data.proxy import ProxySet
from fedistill.data.table import LabelledRows
from fedistill.data.wording import check_names, listing
from fedistill.errors import DataError

_SHOWN_REASONS = 5


def register_rows(
    rows: LabelledRows,
    proxy: ProxySet,
    *,
    num_classes: int,
    rows_at_least: int,
    site: str = "",
) -> LabelledRows:
    """Private rows that fit, in the column order of the proxy set, checked.

    Args:
        rows: The owner's private rows; its misfits are left out.
        proxy: The public proxy set that the owner approves.
        num_classes: Classes of the task, public.
        rows_at_least: The site's public lower bound on its rows, or on its units where they name
            these.
        site: Whose rows these are, for the message; "" leaves it out.

    Raises:
        DataError: Columns differ from the proxy set's, a label is not in 0..num_classes-1, there
            are fewer fitting rows, or units, than `rows_at_least`, or a value is infinite.
    """
    whose = f"site {site!r}: " if site else ""
    _check_shape(rows, whose)
    check_names(rows.columns, proxy.columns, whose)
    rows = _fitting(rows)
    counted = "rows" if rows.units is None else "units"
    if rows.num_units < rows_at_least:
        raise DataError(
            f"{whose}{counted}={rows.num_units} must be at least rows-at-least={rows_at_least}: "
            f"bring more {counted}, use fewer sites, or declare a smaller rows-at-least"
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
        units=rows.units,
    )


def misfits_in_words(rows: LabelledRows) -> str:
    """How many rows do not fit and the most frequent reasons; "" if all fit.

    It quotes private values: for the owner's own log.

    Args:
        rows: The owner's private rows, before `register_rows`.
    """
    if rows.misfit is None:
        return ""
    reasons = Counter(rows.misfit[rows.misfit != ""].tolist())
    if not reasons:
        return ""
    said = [
        f"{reason} ({count:,} row{'s' if count > 1 else ''})"
        for reason, count in reasons.most_common(_SHOWN_REASONS)
    ]
    more = len(reasons) - len(said)
    return (
        f"{reasons.total():,} of {len(rows.rows):,} rows do not fit the proxy set's schema and "
        f"count as nothing: {', '.join(said)}" + (f" and {more:,} more" if more else "")
    )


def _fitting(rows: LabelledRows) -> LabelledRows:
    return rows if rows.misfit is None else rows.take(np.flatnonzero(rows.misfit == ""))


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
