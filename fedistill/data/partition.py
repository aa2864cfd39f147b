"""How the private rows of one table are dealt out to simulated sites.

A partition is fixed by its specification, the rows and the number of sites; no seed reaches it.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fedistill.data.table import LabelledRows
from fedistill.data.wording import listing, nearest, repeated, suggestion
from fedistill.errors import DataError

Order = npt.NDArray[np.intp]


def partition_rows(
    private: LabelledRows,
    spec: str,
    sites: tuple[str, ...],
    site_of_row: tuple[str, ...] | None = None,
) -> dict[str, LabelledRows]:
    """Each site's private rows; every row goes to exactly one site.

    Args:
        private: Rows of all sites together.
        spec: `iid` deals the rows out at random; `quantile:COLUMN` sorts them by a column, missing
            values last, and cuts them so that the first site has the lowest. Sizes differ by at
            most one row.
        sites: Names of the sites, all different.
        site_of_row: (num_rows,) whose row it is. When given, rows are grouped by it, in the order
            of the sorted names, and `spec` and `sites` are not used.

    Raises:
        DataError: An unknown specification or column, no site, a repeated name, or more sites
            than rows.
    """
    if site_of_row is not None:
        return _by_site(private, site_of_row)
    _check_sites(sites, len(private.rows))
    parts = np.array_split(_order(private, spec), len(sites))
    return {site: private.take(part) for site, part in zip(sites, parts, strict=True)}


def _by_site(private: LabelledRows, site_of_row: tuple[str, ...]) -> dict[str, LabelledRows]:
    if len(site_of_row) != len(private.rows):
        raise DataError(
            f"site names of {len(site_of_row)} rows must fit the {len(private.rows)} private "
            "rows: pass one name for each row"
        )
    names, code = np.unique(np.array(site_of_row), return_inverse=True)
    return {str(name): private.take(np.flatnonzero(code == k)) for k, name in enumerate(names)}


def _check_sites(sites: tuple[str, ...], num_rows: int) -> None:
    if len(sites) < 1:
        raise DataError("num-sites=0 must be at least 1: raise num-sites")
    twice = repeated(sites)
    if twice:
        raise DataError(f"site-names {listing(twice)} must differ: rename the repeated ones")
    if len(sites) > num_rows:
        raise DataError(
            f"num-sites={len(sites)} must be at most the number of private rows, {num_rows}: "
            "lower num-sites or bring more rows"
        )


def _order(private: LabelledRows, spec: str) -> Order:
    """The rows' order that a specification asks for, to be cut into equal runs."""
    kind, _, argument = spec.partition(":")
    if kind not in _ORDERS:
        found = nearest(kind, _ORDERS)
        advice = f"did you mean {_FORMS[found]!r}?" if found else "choose one of these"
        raise DataError(f"partition={spec!r} must be {_valid_forms()}: {advice}")
    return _ORDERS[kind](private, spec, argument)


def _valid_forms() -> str:
    return " or ".join(repr(form) for form in _FORMS.values())


def _iid(private: LabelledRows, spec: str, argument: str) -> Order:
    if argument or spec != "iid":
        raise DataError(f"partition={spec!r} must be {_valid_forms()}: write 'iid' alone")
    return np.random.default_rng(0).permutation(len(private.rows))


def _quantile(private: LabelledRows, spec: str, column: str) -> Order:
    if column not in private.columns:
        named = f"names the column {column!r}, which is not a feature" if column else "names none"
        raise DataError(
            f"partition={spec!r} {named}, and it must be quantile:COLUMN with a feature column: "
            f"{suggestion(column, private.columns)}"
        )
    # numpy sorts NaN last, and a stable sort keeps ties in the fixed order of the split.
    return np.argsort(private.rows[:, private.columns.index(column)], kind="stable")


_FORMS: Mapping[str, str] = {"iid": "iid", "quantile": "quantile:COLUMN"}
_ORDERS: Mapping[str, Callable[[LabelledRows, str, str], Order]] = {
    "iid": _iid,
    "quantile": _quantile,
}
