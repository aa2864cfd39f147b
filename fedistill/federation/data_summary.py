"""What a simulation read, in a few lines for the person who runs it, before anything runs."""

import numpy as np

from fedistill.data.description import kinds_in_words
from fedistill.federation.public import Public
from fedistill.federation.simulation import Simulation

_SITES_SHOWN = 12


def describe(simulation: Simulation) -> str:
    """Table, public rows, private rows by site, and who or what is left out."""
    table, proxy = simulation.table, simulation.proxy
    lines = [
        f"{table.name}: {len(table.labels):,} rows; {kinds_in_words(proxy.schema)}",
        f"classes: {_classes(simulation)}",
        f"public: {_public_rows(simulation)}",
        f"private: {_sizes(simulation)}",
        *(f"left out: {site}, {why}" for site, why in simulation.left_out.items()),
        *_misfits(simulation),
        *_units(simulation),
        "policies: written for the sites from the run config; a real site writes its own",
    ]
    return "\n".join(lines)


def describe_public(public: Public) -> str:
    """What the coordinator of a deployment has: public rows, classes, and whom it asks."""
    return "\n".join(
        [
            f"{public.name}: {kinds_in_words(public.proxy.schema)}",
            f"classes: {_classes(public)}",
            f"public: {_public_rows(public)}",
            f"sites: {', '.join(public.site_names)}; their rows, policies and ledgers stay there",
        ]
    )


def _public_rows(public: Public) -> str:
    return (
        f"{len(public.proxy.rows):,} proxy rows without labels (sha256 "
        f"{public.proxy.sha256[:12]}), {len(public.test.rows):,} test rows"
    )


def _classes(public: Public) -> str:
    """Names and shares of the classes among the public test rows."""
    classes = public.classes
    counts = np.bincount(public.test.labels, minlength=len(classes))
    shares = counts / counts.sum()
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(classes, shares, strict=True)) + (
        " of the test rows" if len(classes) > 1 else ""
    )


def _sizes(simulation: Simulation) -> str:
    sizes = [f"{name} {len(part.rows):,}" for name, part in simulation.sites.items()]
    more = len(sizes) - _SITES_SHOWN
    return ", ".join(sizes[:_SITES_SHOWN]) + (f" and {more} more sites" if more > 0 else " rows")


def _misfits(simulation: Simulation) -> list[str]:
    """How many rows count as nothing; why, stands in each site's own log."""
    counts = {site: count for site, count in simulation.misfits.items() if count}
    if not counts:
        return []
    sizes = [f"{count:,} at {site}" for site, count in list(counts.items())[:_SITES_SHOWN]]
    more = len(counts) - len(sizes)
    tail = f" and at {more} more sites" if more > 0 else ""
    return [
        f"do not fit the proxy rows' columns and count as nothing: {', '.join(sizes)}{tail} "
        "(a run writes why into each site's site.log)"
    ]


def _units(simulation: Simulation) -> list[str]:
    """Units and their largest number of rows, where a column names them."""
    units = [part.units for part in simulation.sites.values() if part.units is not None]
    if not units:
        return []
    counts = np.concatenate([np.unique(codes, return_counts=True)[1] for codes in units])
    return [
        f"units: {len(counts):,}, the largest with {counts.max():,} rows; no unit is both public "
        "and private. The guarantee covers a unit with all its rows"
    ]
