"""Geometry of the report's charts; the template draws what these functions place.

The dot plot is placed in pixels, once for wide and once for narrow screens, so that its text keeps
its size. Bars are percentages of whatever width they get.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedistill.evaluate import wording
from fedistill.evaluate.metrics import Scores
from fedistill.evaluate.summary import Summary

MOST_ROWS = 24
_MIN_SPAN = 0.04
_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)


class Spending(Protocol):
    """What a site's ledger says after a charge: a receipt or the summary of a site."""

    @property
    def total_epsilon(self) -> float | None:
        """All charges composed."""

    @property
    def remaining_epsilon(self) -> float | None:
        """What the budget still holds."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis from `low` to `high` with labelled `ticks`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def place(self, value: float) -> float:
        """Where `value` lies, 0 at the low end and 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def label(self, tick: float) -> str:
        """The tick's label."""
        return f"{tick:.{self.digits}f}"


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One row of the dot plot. `x`, `low` and `high` are pixels, None where not defined."""

    kind: str
    label: str
    title: str
    value: str
    y: float
    label_y: float
    x: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """A dot plot in pixels. `reference` is the row of the reference line, drawn through all."""

    layout: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    axis: Axis
    ticks: tuple[tuple[float, str], ...]
    dots: tuple[Dot, ...]
    reference: Dot | None
    omitted: int


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


def axis_around(low: float, high: float, *, most_ticks: int) -> Axis:
    """An axis of round numbers around [low, high], inside [0, 1] and never narrower than 0.04."""
    if high - low < _MIN_SPAN:
        middle = min(max((low + high) / 2, _MIN_SPAN / 2), 1 - _MIN_SPAN / 2)
        low, high = middle - _MIN_SPAN / 2, middle + _MIN_SPAN / 2
    # The slack keeps a bound that is a tick already, up to float error, from adding another tick.
    for step in _STEPS:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        first, last = max(first, 0), min(last, round(1 / step))
        if last - first < most_ticks:
            break
    ticks = tuple(round(place * step, 6) for place in range(first, last + 1))
    digits = 2 if all(abs(tick * 100 - round(tick * 100)) < 1e-6 for tick in ticks) else 3
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, digits=digits)


def auc_plot(summary: Summary, *, narrow: bool) -> DotPlot | None:
    """The dot plot of test AUC with its standard errors. None when no AUC is defined."""
    rows = wording.score_rows(summary)
    ends = [end for _, _, scores in rows for end in _interval(scores)]
    if not ends:
        return None
    axis = axis_around(max(min(ends), 0.0), min(max(ends), 1.0), most_ticks=6 if narrow else 9)
    teachers = [row for row in rows if row[0] == "teacher"]
    shown = teachers[:MOST_ROWS] + [row for row in rows if row[0] not in ("teacher", "reference")]
    width, left, right = (360, 12.0, 348.0) if narrow else (760, 190.0, 620.0)
    pitch, gap = 46.0 if narrow else 32.0, 10.0
    top = 34.0 if summary.metrics.central_reference else 12.0

    def dot(kind: str, name: str, scores: Scores, y: float) -> Dot:
        def place(value: float) -> float:
            return left + (right - left) * axis.place(min(max(value, axis.low), axis.high))

        interval = _interval(scores)
        return Dot(
            kind=kind,
            label=_shortened(name, 22 if not narrow else 26),
            title=f"{name}: AUC {wording.with_error(scores)}",
            value=wording.with_error(scores),
            y=y + (10 if narrow else 0),
            label_y=y - 8 if narrow else y,
            x=None if scores.auc is None else place(scores.auc),
            low=place(interval[0]) if len(interval) == 2 else None,
            high=place(interval[1]) if len(interval) == 2 else None,
        )

    dots, y = [], top + pitch / 2 + 4
    for place, (kind, name, scores) in enumerate(shown):
        y += gap if place and kind != "teacher" and shown[place - 1][0] == "teacher" else 0.0
        dots.append(dot(kind, name, scores, y))
        y += pitch
    bottom = y - pitch / 2 + 4
    reference = next((dot(*row, y=top) for row in rows if row[0] == "reference"), None)
    return DotPlot(
        layout="narrow" if narrow else "wide",
        width=width,
        height=round(bottom + 44),
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        axis=axis,
        ticks=tuple(
            (left + (right - left) * axis.place(tick), axis.label(tick)) for tick in axis.ticks
        ),
        dots=tuple(dots),
        reference=reference if reference is not None and reference.x is not None else None,
        omitted=max(0, len(teachers) - MOST_ROWS),
    )


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
                label=_shortened(name, 40),
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


def _interval(scores: Scores) -> tuple[float, ...]:
    if scores.auc is None:
        return ()
    error = scores.auc_standard_error
    return (scores.auc,) if error is None else (scores.auc - error, scores.auc + error)


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


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
