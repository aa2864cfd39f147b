"""Who gains from joining, in words."""

from collections.abc import Mapping, Sequence

from fedistill.evaluate.calibration import NORMAL_95
from fedistill.evaluate.comparison import Comparison, SiteComparison
from fedistill.evaluate.metrics import Difference
from fedistill.evaluate.wording import NOT_DEFINED, count_of, in_words, listing

GAINS, LOSES, EVEN, UNKNOWN = "gains", "loses", "within error", "not defined"
_NAMED = 8
_CLAUSES = {
    GAINS: "is better at",
    LOSES: "is worse at",
    EVEN: "differs by less than the error at",
    UNKNOWN: "cannot be compared at",
}


def interval(difference: Difference) -> tuple[float, float] | None:
    """The 95% interval of a difference of AUCs, None where it has none."""
    if difference.value is None or difference.standard_error is None:
        return None
    reach = NORMAL_95 * difference.standard_error
    return difference.value - reach, difference.value + reach


def verdict(difference: Difference) -> str:
    """`gains` or `loses` when the 95% interval excludes zero, else `within error`."""
    ends = interval(difference)
    if ends is None:
        return UNKNOWN
    return GAINS if ends[0] > 0 else LOSES if ends[1] < 0 else EVEN


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign: `+0.012`, with a minus sign below zero."""
    return NOT_DEFINED if value is None else f"{value:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def with_error(difference: Difference, digits: int = 3) -> str:
    """A difference with its standard error: `+0.012 ± 0.004`."""
    text = signed(difference.value, digits)
    if difference.value is None or difference.standard_error is None:
        return text
    return f"{text} ± {difference.standard_error:.{digits}f}"


def sentences(comparisons: Mapping[str, Comparison]) -> tuple[str, ...]:
    """Who gains, who does not and for whom it cannot be told, without and with privacy."""
    if not comparisons:
        return ()
    sentences = [
        _sentence(
            "Against a site's own best model without differential privacy",
            {site: each.gain for site, each in comparisons.items()},
        )
    ]
    if has_private(comparisons):
        sentences.append(
            _sentence(
                "Against its own model with differential privacy",
                {site: each.gain_private for site, each in comparisons.items()},
            )
        )
    return tuple(sentences)


def has_private(comparisons: Mapping[str, Comparison]) -> bool:
    """Whether any site has a model of its own with privacy: not where sites send parts of sums."""
    return any(each.gain_private.value is not None for each in comparisons.values())


def own_comparisons(sites: Mapping[str, SiteComparison]) -> dict[str, Comparison]:
    """The comparisons on the sites' own kind of test rows, where there are any."""
    return {name: site.own for name, site in sites.items() if site.own is not None}


def _sentence(against: str, gains: Mapping[str, Difference]) -> str:
    members: dict[str, list[str]] = {}
    for site, gain in gains.items():
        members.setdefault(verdict(gain), []).append(site)
    parts: list[str] = []
    for key, clause in _CLAUSES.items():
        if key in members:
            parts.append(f"{clause} {_sites(members[key], len(gains), first=not parts)}")
    return f"{against}, the shared student {listing(parts)}."


def _sites(names: Sequence[str], total: int, *, first: bool) -> str:
    if len(names) == total:
        return names[0] if total == 1 else f"all {count_of(total, 'site')}"
    shown = [*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])]
    among = f" of {count_of(total, 'site')}" if first else ""
    return f"{in_words(len(names))}{among} ({', '.join(shown)})"
