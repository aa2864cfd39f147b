"""The compression front: what each stage costs and what it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedistill.evaluate import wording
from fedistill.evaluate.charts.axis import Axis, axis_around, axis_from_zero
from fedistill.evaluate.summary import Stage, Summary

_LETTER = 7.0
_LINE = 16.0
_CLEAR = 9.0
_MOST_NAMES = 6
_BEFORE = {"start": 0.0, "middle": 0.5, "end": 1.0}


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One stage in pixels; `optimal` when no other stage is both cheaper and better."""

    label: str
    title: str
    shipped: bool
    optimal: bool
    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True, kw_only=True)
class FrontPlot:
    """A scatter plot in pixels. `front` joins the optimal points, cheapest first."""

    name: str
    title: str
    unit: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    points: tuple[FrontPoint, ...]
    front: tuple[tuple[float, float], ...]


def front_plots(summary: Summary) -> tuple[FrontPlot, ...]:
    """Gate metric against file size and against latency; without stages that lack a figure."""
    scale, unit = (1e6, "MB") if _largest_file(summary) >= 1e6 else (1e3, "KB")
    plots = (
        _front_plot(
            "front-size",
            "Quality and file size",
            f"File size, {unit}",
            [(stage, stage.bytes / scale, wording.size(stage.bytes)) for stage in _drawn(summary)],
        ),
        _front_plot(
            "front-latency",
            "Quality and latency",
            "Latency of 1 row, ms",
            [
                (stage, stage.latency_ms_batch_1, wording.milliseconds(stage.latency_ms_batch_1))
                for stage in _drawn(summary)
                if stage.latency_ms_batch_1 is not None
            ],
        ),
    )
    return tuple(plot for plot in plots if plot is not None)


def optimal(costs: Sequence[float], values: Sequence[float]) -> tuple[bool, ...]:
    """Which points no other point beats: none costs no more and is worth no less, one strictly."""
    points = list(zip(costs, values, strict=True))
    return tuple(
        not any(
            other_cost <= cost and other >= value and (other_cost, other) != (cost, value)
            for other_cost, other in points
        )
        for cost, value in points
    )


def _drawn(summary: Summary) -> list[Stage]:
    return [stage for stage in summary.compression if stage.metric is not None]


def _largest_file(summary: Summary) -> int:
    return max((stage.bytes for stage in summary.compression), default=0)


def _front_plot(
    name: str, title: str, unit: str, stages: Sequence[tuple[Stage, float, str]]
) -> FrontPlot | None:
    if not stages:
        return None
    left, right, top, bottom = 58.0, 348.0, 14.0, 222.0
    costs = [cost for _, cost, _ in stages]
    values = [stage.metric or 0.0 for stage, _, _ in stages]
    x_axis = axis_from_zero(max(costs), most_ticks=5)
    y_axis = axis_around(min(values), max(values), most_ticks=6, least_span=0.004)
    best = optimal(costs, values)
    places = [
        (x_axis.between(left, right, cost), y_axis.between(bottom, top, value))
        for cost, value in zip(costs, values, strict=True)
    ]
    # The label of the shipped file chooses its place first.
    order = sorted(range(len(stages)), key=lambda index: not stages[index][0].shipped)
    # Among many points only those that matter are named.
    many = len(stages) > _MOST_NAMES
    named = [
        not many or is_best or each[0].shipped for is_best, each in zip(best, stages, strict=True)
    ]
    names = [stages[index][0].stage if named[index] else "" for index in order]
    spots = _labels(names, places, order, (left, right, top, bottom))
    labels = [spot for _, spot in sorted(zip(order, spots, strict=True))]
    points = tuple(
        FrontPoint(
            label=stage.stage if has_name else "",
            title=f"{stage.stage}: {words}, gate metric {wording.fraction(stage.metric)}",
            shipped=stage.shipped,
            optimal=is_best,
            x=place[0],
            y=place[1],
            label_x=label[0],
            label_y=label[1],
            anchor=label[2],
        )
        for (stage, _, words), is_best, has_name, place, label in zip(
            stages, best, named, places, labels, strict=True
        )
    )
    return FrontPlot(
        name=name,
        title=title,
        unit=unit,
        width=360,
        height=266,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=_ticks(x_axis, left, right),
        y_ticks=_ticks(y_axis, bottom, top),
        points=points,
        front=tuple(sorted(place for place, is_best in zip(places, best, strict=True) if is_best)),
    )


def _ticks(axis: Axis, start: float, end: float) -> tuple[tuple[float, str], ...]:
    return tuple((axis.between(start, end, tick), axis.label(tick)) for tick in axis.ticks)


def _labels(
    texts: Sequence[str],
    points: Sequence[tuple[float, float]],
    order: Sequence[int],
    frame: tuple[float, float, float, float],
) -> list[tuple[float, float, str]]:
    """Where each point's label goes, as (x, middle y, anchor): near it, and clear of all others."""
    left, right, top, bottom = frame
    taken = [(x - 7, x + 7, y - 7, y + 7) for x, y in points]
    labels = []
    for text, (x, y) in zip(texts, (points[index] for index in order), strict=True):
        length = _LETTER * len(text)
        tried = [
            (x + _CLEAR, y, "start"),
            (x - _CLEAR, y, "end"),
            (x, y - _LINE, "middle"),
            (x, y + _LINE, "middle"),
            *(
                (x + side * _CLEAR, y + away * _LINE, "start" if side > 0 else "end")
                for away in (-1, 1, -2, 2, -3, 3)
                for side in (1, -1)
            ),
        ]
        starts = [at - _BEFORE[anchor] * length for at, _, anchor in tried]
        boxes = [
            (start, start + length, middle - _LINE / 2, middle + _LINE / 2)
            for start, (_, middle, _) in zip(starts, tried, strict=True)
        ]
        free = [
            place
            for place, (start, end, high, low) in enumerate(boxes)
            if start >= left and end <= right + 12 and high >= top - 8 and low <= bottom
            if not any(
                start < other[1] and other[0] < end and high < other[3] and other[2] < low
                for other in taken
            )
        ]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        labels.append(tried[chosen])
    return labels
