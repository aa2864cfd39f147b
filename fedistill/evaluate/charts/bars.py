"""Bars that start at zero: budgets, compression stages, seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedistill.evaluate import wording
from fedistill.evaluate.charts.axis import MOST_ROWS, shortened
from fedistill.evaluate.summary import Summary


class Spending(Protocol):
    """What a site's ledger says after a charge: a receipt or the summary of a site."""

    @property
    def total_epsilon(self) -> float | None:
        """All charges composed."""

    @property
    def remaining_epsilon(self) -> float | None:
        """What the budget still holds."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: `segments` are (kind, start, length) in percent of the chart's width."""

    label: str
    value: str
    segments: tuple[tuple[str, float, float], ...]
    emphasis: bool = False


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """Bars that share one scale, which starts at zero.

    `value_beside` puts short values to the right of the bars, long ones stand below.
    """

    name: str
    title: str
    note: str
    bars: tuple[Bar, ...]
    value_beside: bool = True


def budget_chart(summary: Summary) -> BarChart:
    """Each site's budget: spent before this run, spent by this run, left. One scale for all."""
    sites = summary.privacy.sites
    widest = max((_budget(site) for site in sites.values()), default=0.0)
    bars = []
    for name, site in list(sites.items())[:MOST_ROWS]:
        total, remaining = site.total_epsilon or 0.0, max(site.remaining_epsilon or 0.0, 0.0)
        this_run = min(site.epsilon or 0.0, total)
        amounts = (("earlier", total - this_run), ("this-run", this_run), ("left", remaining))
        bars.append(
            Bar(
                label=shortened(name, 40),
                value=f"{wording.spent(site.total_epsilon)} of {budget_words(site)} spent, "
                f"{wording.left(site.remaining_epsilon)} left",
                segments=_stacked(amounts, widest),
            )
        )
    omitted = len(sites) - len(bars)
    note = f"The first {len(bars)} of {len(sites)} sites; the table has all." if omitted else ""
    return BarChart(
        name="budget",
        title="Privacy budget by site",
        note=note,
        bars=tuple(bars),
        value_beside=False,
    )


def budget_words(site: Spending) -> str:
    """A site's whole budget, from what was spent and what is left."""
    if site.total_epsilon is None or site.remaining_epsilon is None:
        return wording.NOT_DEFINED
    return f"{_budget(site):.3f}"


def stage_charts(summary: Summary) -> tuple[BarChart, ...]:
    """File size and latency by compression stage, one chart each; the shipped stage stands out."""
    stages = summary.compression

    def chart(
        name: str, title: str, values: list[float | None], say: Callable[[float], str]
    ) -> BarChart:
        widest = max((value for value in values if value is not None), default=0.0)
        return BarChart(
            name=name,
            title=title,
            note="",
            bars=tuple(
                Bar(
                    label=stage.stage,
                    value=wording.NOT_DEFINED if value is None else say(value),
                    segments=_stacked((("bar", value or 0.0),), widest),
                    emphasis=stage.shipped,
                )
                for stage, value in zip(stages, values, strict=True)
            ),
        )

    return (
        chart("size", "File size", [s.bytes for s in stages], lambda v: wording.size(round(v))),
        chart(
            "latency-1",
            "Latency of 1 row",
            [s.latency_ms_batch_1 for s in stages],
            wording.milliseconds,
        ),
        chart(
            "latency-256",
            "Latency of 256 rows",
            [s.latency_ms_batch_256 for s in stages],
            wording.milliseconds,
        ),
    )


def timing_chart(summary: Summary) -> BarChart:
    """Seconds by phase."""
    longest = max(summary.timings.values(), default=0.0)
    bars = tuple(
        Bar(label=phase, value=wording.seconds(took), segments=_stacked((("bar", took),), longest))
        for phase, took in summary.timings.items()
    )
    return BarChart(name="timings", title="Seconds by phase", note="", bars=bars)


def _budget(site: Spending) -> float:
    return (site.total_epsilon or 0.0) + max(site.remaining_epsilon or 0.0, 0.0)


def _stacked(
    amounts: Sequence[tuple[str, float]], widest: float
) -> tuple[tuple[str, float, float], ...]:
    segments, start = [], 0.0
    for kind, amount in amounts:
        length = 100 * amount / widest if widest > 0 else 0.0
        if length > 0:
            segments.append((kind, start, length))
        start += length
    return tuple(segments)
