"""Numbers and guarantees in words, the same in the terminal table and in the report."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from fedistill.evaluate.calibration import CalibrationBin
from fedistill.evaluate.federated import FederatedScores
from fedistill.evaluate.metrics import Scores
from fedistill.evaluate.summary import PersonPrivacy, SitePrivacy, Summary

NOT_DEFINED = "n/a"
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_UNITS = {
    "record": ("record", "one row at one site is all that a person contributes"),
    "group": (
        "person's or customer's group of records",
        "a group holds all that a person or customer has, at one site only",
    ),
    "site": ("whole site", "sites do not share people"),
}


def fraction(value: float | None, digits: int = 4) -> str:
    """A fraction with fixed digits, or `n/a` where it is not defined."""
    return NOT_DEFINED if value is None else f"{value:.{digits}f}"


def with_error(scores: Scores, digits: int = 3) -> str:
    """The AUC with its standard error: `0.762 ± 0.009`."""
    return figure_with_error(scores.auc, scores.auc_standard_error, digits)


def figure_with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    """Any fraction with its standard error, likewise."""
    if value is None or error is None:
        return fraction(value, digits)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def spent(epsilon: float | None) -> str:
    """An epsilon that was spent, rounded up to three digits: never shown smaller than it is."""
    # The slack keeps a float's last bit, as in 1.0000000000000002, from adding a whole unit.
    return NOT_DEFINED if epsilon is None else f"{math.ceil(epsilon * 1000 - 1e-6) / 1000:.3f}"


def in_prose(epsilon: float | None) -> str:
    """As `spent`, without trailing zeros: `1`, `0.5`."""
    text = spent(epsilon)
    return text if epsilon is None else text.rstrip("0").rstrip(".") or "0"


def left(epsilon: float | None) -> str:
    """An epsilon that remains, rounded down to three digits."""
    return NOT_DEFINED if epsilon is None else f"{math.floor(epsilon * 1000 + 1e-6) / 1000:.3f}"


def power(value: float) -> str:
    """A small number such as delta: `1e-5`."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    if not exponent:
        mantissa, _, exponent = f"{value:.1e}".replace(".0e", "e").partition("e")
    return f"{mantissa}e{int(exponent)}"


def size(count: int) -> str:
    """Bytes in decimal units: `812 bytes`, `12.1 KB`, `3.4 MB`."""
    if count < 1000:
        return f"{count} bytes"
    unit, scale = ("KB", 1e3) if count < 999_950 else ("MB", 1e6)
    return f"{count / scale:.1f} {unit}"


def milliseconds(value: float | None) -> str:
    """`0.0421 ms`, `12.3 ms`."""
    return NOT_DEFINED if value is None else f"{three_digits(value)} ms"


def three_digits(value: float | None) -> str:
    """Three significant digits, at most four after the point: `0.0421`, `12.3`."""
    if value is None:
        return NOT_DEFINED
    digits = 3 if value <= 0 else min(4, max(0, 2 - math.floor(math.log10(value))))
    return f"{value:.{digits}f}"


def seconds(value: float) -> str:
    """`0.4 s`, `42 s`, `1 min 52 s`."""
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def percent(share: float | None) -> str:
    """A share in percent: `23.4%`."""
    return NOT_DEFINED if share is None else f"{100 * share:.1f}%"


def day_and_time(time: datetime) -> str:
    """`23 November 2026 at 22:45:50 UTC`."""
    zone = "" if time.tzinfo is None else f" {time.tzname()}"
    return f"{time.day} {time:%B %Y at %H:%M:%S}{zone}"


def count_of(number: int, noun: str) -> str:
    """`three sites`, `one site`, `12 sites`."""
    return f"{in_words(number)} {noun}{'' if number == 1 else 's'}"


def in_words(number: int) -> str:
    """`no`, `one`, ... `ten`, `11`."""
    return _COUNTS[number] if number < len(_COUNTS) else f"{number:,}"


def sentence(text: str) -> str:
    """`text` with a capital first letter and a full stop."""
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def auc_name(summary: Summary) -> str:
    """What `auc` means for this number of classes."""
    return "AUC" if len(summary.split.classes) <= 2 else "AUC (macro one-vs-rest)"


def calibration_sentence(bins: Sequence[CalibrationBin]) -> str:
    """In how many bins the prediction lies inside the interval of what was observed."""
    above = sum(each.predicted > each.high for each in bins)
    below = sum(each.predicted < each.low for each in bins)

    def number(count: int) -> str:
        return "none" if count == 0 else in_words(count)

    parts = [f"inside the 95% interval of what was observed in {number(len(bins) - above - below)}"]
    parts += [f"above it in {number(above)}"] if above else []
    parts += [f"below it in {number(below)}"] if below else []
    return f"Of {count_of(len(bins), 'bin')}, the mean prediction lies {listing(parts)}."


def listing(parts: Sequence[str]) -> str:
    """`one, two and three`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def score_rows(summary: Summary) -> tuple[tuple[str, str, Scores], ...]:
    """Everything that was scored, as (kind, name, scores), in the order of the journey."""
    metrics = summary.metrics
    rows = [("teacher", site, scores) for site, scores in (metrics.teachers or {}).items()]
    rows.append(("ensemble", "ensemble target", metrics.ensemble))
    rows.append(("float", "float student", metrics.student_fp32))
    rows.append(("shipped", "shipped file", metrics.student))
    if metrics.central_reference is not None:
        rows.append(("reference", "central, not private", metrics.central_reference))
    return tuple(rows)


def federated_sentence(found: FederatedScores, summary: Summary) -> str:
    """What the shipped file scores on rows that the sites held out, noise included."""
    noun = "unit" if any(site.unit == "group" for site in summary.privacy.sites.values()) else "row"
    return (
        f"On some {max(found.units, 0):,.0f} {noun}s that {count_of(len(found.sites), 'site')} "
        f"held out, by noised counts: {auc_name(summary)} "
        f"{figure_with_error(found.auc, found.auc_standard_error)}, accuracy "
        f"{figure_with_error(found.accuracy, found.accuracy_standard_error)}."
    )


def dearest(summary: Summary) -> float | None:
    """The largest epsilon that a site was charged by this run."""
    return dearest_of(summary.privacy.sites)


def dearest_of(sites: Mapping[str, SitePrivacy]) -> float | None:
    """The largest of these sites' epsilons for one run."""
    charges = [site.epsilon for site in sites.values()]
    return max((charge for charge in charges if charge is not None), default=None)


def headline(summary: Summary) -> str:
    """The result of the run in one sentence."""
    sites, stage = summary.privacy.sites, summary.shipped_stage
    file = f"one {size(stage.bytes)} model" if stage else "one model"
    result = f"{auc_name(summary)} {with_error(summary.metrics.student)}"
    price = f"epsilon {in_prose(dearest(summary))}"
    if len({spent(site.epsilon) for site in sites.values()}) > 1:
        price = f"at most {price}"
    return (
        f"{count_of(len(sites), 'site').capitalize()} taught {file} that scores {result} on public "
        f"test rows, for {price}{' each' if len(sites) > 1 else ''}."
    )


def guarantee_sentence(sites: Mapping[str, SitePrivacy], *, honest: int | None = None) -> str:
    """The guarantee of everything that `sites` ever released, with adjacency and assumptions.

    The sites' largest epsilon and delta are stated; all share one unit and one adjacency.

    Args:
        sites: What each paid.
        honest: Sites that share the noise of a sum and must be honest; None where each site's own
            noise is enough.
    """
    if not sites:
        return "No site released anything."
    site = next(iter(sites.values()))
    delta = max(each.delta for each in sites.values())
    everyone = _largest([each.views.everyone for each in sites.values()])
    server = _largest([each.views.server for each in sites.values()])
    floating = ""
    if float_sites(sites):
        floating = (
            f", and, for {listing(float_sites(sites))}, that floating-point noise hides what noise "
            "in real numbers would"
        )
    noun, assumption = _UNITS.get(site.unit, (site.unit, "units do not overlap"))
    change = "Adding or removing" if site.adjacency == "add-remove" else "Replacing"
    against = "everyone, the server and the other sites included"
    if server != everyone:
        known = "no finite bound" if everyone is None else f"epsilon {in_prose(everyone)}"
        against = (
            f"the server and all who see sums over sites only, while at least {honest or 2} sites "
            f"of every sum keep their part of its noise (if all others pool theirs: {known})"
        )
    if server is None:
        bound = "is not bounded by a finite epsilon for"
        return f"{change} any one {noun} of a site {bound} what that site released."
    pair = f"({in_prose(server)}, {power(delta)})"
    factor = f"e^{in_prose(server)}" + (f" = {math.exp(server):.2f}" if server < 20 else "")
    return (
        f"{change} any one {noun} of a site makes any outcome of what that site ever released "
        f"about this population at most {factor} times as likely, plus delta = {power(delta)}: "
        f"{pair}-differential privacy at {site.unit} level under {site.adjacency} adjacency, "
        f"against {against}, assuming that {assumption}, that each site runs the published code "
        f"on a machine it alone controls, and that its ledger was not rolled back{floating}."
    )


def asked_sentence(sites: Mapping[str, SitePrivacy], *, honest: int | None = None) -> str:
    """What deployed sites were asked to pay; what they ever spent is known to them alone.

    Args:
        sites: What each was asked.
        honest: See `guarantee_sentence`.
    """
    if not sites:
        return "No site released anything."
    epsilon, delta = dearest_of(sites), max(site.delta for site in sites.values())
    units = " or ".join(sorted({site.unit for site in sites.values()}))
    shared = (
        f", against all who see sums only, while at least {honest} sites of every sum are honest"
        if honest
        else ""
    )
    return (
        f"All that a site was asked for costs it at most epsilon {in_prose(epsilon)} at "
        f"delta {power(delta)} ({units} level, {next(iter(sites.values())).adjacency}{shared}), "
        "and it charged itself before it answered. What it has spent in total stands in its own "
        "ledger, and what it sent on its own receipts, which stay with it: nothing here bounds "
        "them."
    )


def float_sites(sites: Mapping[str, SitePrivacy]) -> tuple[str, ...]:
    """The sites whose noise was made in floating point."""
    return tuple(sorted(name for name, site in sites.items() if site.float_noise))


def mechanisms_differ(sites: Mapping[str, SitePrivacy]) -> bool:
    """Whether sites answered with unlike mechanisms, so that each must be named."""
    return len({site.mechanism for site in sites.values()}) > 1


def noise_sentence(sites: Mapping[str, SitePrivacy]) -> str:
    """The samplers of the sites' noise, without a full stop."""
    floating = float_sites(sites)
    exact = "exact discrete Gaussian on integers, drawn from the operating system's CSPRNG"
    if not floating:
        return f"{exact}; no floating-point noise"
    named = f"floating-point Gaussian at {listing(floating)}"
    return named if len(floating) == len(sites) else f"{named}; {exact}, at all other sites"


def person_sentence(person: PersonPrivacy) -> str:
    """What a person has spent in total, under both assumptions about who is at which site."""

    def shown(epsilon: float | None) -> str:
        return "no known bound" if epsilon is None else f"epsilon {in_prose(epsilon)}"

    return (
        f"Assuming no person at two sites, a person's total is {shown(person.one_site)}, the "
        f"largest of a site; for someone with a record at every site it is "
        f"{shown(person.every_site)}, all sites' charges composed (delta {power(person.delta)})."
    )


def _largest(values: list[float | None]) -> float | None:
    return None if None in values else max(value for value in values if value is not None)
