"""How the private rows of one table are dealt out to simulated sites.

A partition is fixed by its specification, the rows and the number of sites; no seed reaches it. All
rows of a unit go to one site: the unit is dealt as its first row would be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedistill.data.columns import Index
from fedistill.data.table import LabelledRows
from fedistill.data.units import Units
from fedistill.data.wording import listing, nearest, repeated, suggestion
from fedistill.errors import DataError

MOST_ALPHA = 1000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Deal:
    """What a specification deals out: the first row of each unit.

    Attributes:
        spec: The whole specification.
        argument: What follows its first colon.
        heads: (num_units,) the first row of each unit.
        num_sites: How many parts to make.
    """

    spec: str
    argument: str
    heads: LabelledRows
    num_sites: int


def partition_rows(
    private: LabelledRows,
    spec: str,
    sites: tuple[str, ...],
    site_of_row: tuple[str, ...] | None = None,
) -> dict[str, LabelledRows]:
    """Each site's private rows; every row goes to exactly one site.

    Args:
        private: Rows of all sites together.
        spec: `iid` deals the units out at random; `quantile:COLUMN` sorts them by a column, missing
            values last, and cuts them so that the first site has the lowest: in both, sizes
            differ by at most one unit. `dirichlet:ALPHA` draws for each class the shares of the
            sites from a symmetric Dirichlet distribution, so that a small ALPHA gives each site
            few classes and sizes that differ much (Yurochkin et al. 2019; Hsu, Qi and Brown 2019);
            misfits are dealt at random.
        sites: Names of the sites, all different.
        site_of_row: (num_rows,) whose row it is. When given, rows are grouped by it, in the order
            of the sorted names, and `spec` and `sites` are not used.

    Raises:
        DataError: An unknown specification or column, a bad ALPHA, no site, a repeated name, more
            sites than units.
    """
    if site_of_row is not None:
        return _by_site(private, site_of_row)
    units = Units.of(private.units, len(private.rows))
    _check_sites(sites, len(units), "rows" if private.units is None else "units")
    parts = _parts(private.take(units.first), spec, len(sites))
    return {site: private.take(units.rows(part)) for site, part in zip(sites, parts, strict=True)}


def _by_site(private: LabelledRows, site_of_row: tuple[str, ...]) -> dict[str, LabelledRows]:
    if len(site_of_row) != len(private.rows):
        raise DataError(
            f"site names of {len(site_of_row)} rows must fit the {len(private.rows)} private "
            "rows: pass one name for each row"
        )
    names, code = np.unique(np.array(site_of_row), return_inverse=True)
    return {str(name): private.take(np.flatnonzero(code == k)) for k, name in enumerate(names)}


def _check_sites(sites: tuple[str, ...], count: int, what: str) -> None:
    if len(sites) < 1:
        raise DataError("num-sites=0 must be at least 1: raise num-sites")
    twice = repeated(sites)
    if twice:
        raise DataError(f"site-names {listing(twice)} must differ: rename the repeated ones")
    if len(sites) > count:
        raise DataError(
            f"num-sites={len(sites)} must be at most the number of private {what}, {count}: "
            "lower num-sites or bring more rows"
        )


def _parts(heads: LabelledRows, spec: str, num_sites: int) -> list[Index]:
    """The units of each site."""
    kind, _, argument = spec.partition(":")
    if kind not in _DEALERS:
        found = nearest(kind, _DEALERS)
        advice = f"did you mean {_FORMS[found]!r}?" if found else "choose one of these"
        raise DataError(f"partition={spec!r} must be {_valid_forms()}: {advice}")
    return _DEALERS[kind](_Deal(spec=spec, argument=argument, heads=heads, num_sites=num_sites))


def _valid_forms() -> str:
    *others, last = (repr(form) for form in _FORMS.values())
    return f"{', '.join(others)} or {last}"


def _iid(deal: _Deal) -> list[Index]:
    if deal.spec != "iid":
        raise DataError(f"partition={deal.spec!r} must be {_valid_forms()}: write 'iid' alone")
    order = np.random.default_rng(0).permutation(len(deal.heads.rows))
    return np.array_split(order, deal.num_sites)


def _quantile(deal: _Deal) -> list[Index]:
    column, columns = deal.argument, deal.heads.columns
    if column not in columns:
        named = f"names the column {column!r}, which is not a feature" if column else "names none"
        raise DataError(
            f"partition={deal.spec!r} {named}, and it must be quantile:COLUMN with a feature "
            f"column: {suggestion(column, columns)}"
        )
    # numpy sorts NaN last, and a stable sort keeps ties in the fixed order of the split.
    order = np.argsort(deal.heads.rows[:, columns.index(column)], kind="stable")
    return np.array_split(order, deal.num_sites)


def _dirichlet(deal: _Deal) -> list[Index]:
    alpha = _alpha(deal.argument)
    if alpha is None:
        raise DataError(
            f"partition={deal.spec!r} must be dirichlet:ALPHA with a number ALPHA above 0 and at "
            f"most {MOST_ALPHA:g}: write for instance 'dirichlet:0.3'"
        )
    random, labels = np.random.default_rng(0), deal.heads.labels
    site = random.integers(deal.num_sites, size=len(labels))
    for k in range(deal.heads.num_classes):
        units = random.permutation(np.flatnonzero(labels == k))
        shares = random.dirichlet(np.full(deal.num_sites, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(units)).astype(np.intp)
        for i, part in enumerate(np.split(units, cuts)):
            site[part] = i
    return [np.flatnonzero(site == i) for i in range(deal.num_sites)]


def _alpha(argument: str) -> float | None:
    """The number above 0 and at most `MOST_ALPHA` that the text is, or None."""
    try:
        alpha = float(argument)
    except ValueError:
        return None
    return alpha if 0 < alpha <= MOST_ALPHA else None


_FORMS: Mapping[str, str] = {
    "iid": "iid",
    "quantile": "quantile:COLUMN",
    "dirichlet": "dirichlet:ALPHA",
}
_DEALERS: Mapping[str, Callable[[_Deal], list[Index]]] = {
    "iid": _iid,
    "quantile": _quantile,
    "dirichlet": _dirichlet,
}
