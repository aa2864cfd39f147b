"""Curves of a score over epsilon, one a mechanism."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedistill.evaluate.charts.axis import axis_around

_DASHES = ("", "7 4", "2 3", "9 3 2 3", "5 2", "1 4")
_LABEL_GAP = 16.0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One mechanism in pixels; `label_y` keeps clear of the other labels."""

    label: str
    title: str
    best: bool
    dash: str
    points: tuple[tuple[float, float], ...]
    label_y: float


@dataclass(frozen=True, kw_only=True)
class CurvePlot:
    """A line chart in pixels with a logarithmic axis of epsilon."""

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
    curves: tuple[Curve, ...]


def curve_plot(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, best: str | None, unit: str
) -> CurvePlot | None:
    """Scores over epsilon. None without a point.

    Args:
        curves: (epsilon, score) by name; epsilon above 0.
        best: The name to stress.
        unit: What the score is called.
    """
    points = [point for each in curves.values() for point in each]
    if not points:
        return None
    left, right, top, bottom = 58.0, 600.0, 14.0, 300.0
    epsilons = sorted({epsilon for epsilon, _ in points})
    low, high = math.log(epsilons[0]), math.log(epsilons[-1])
    axis = axis_around(
        min(value for _, value in points), max(value for _, value in points), most_ticks=8
    )

    def x(epsilon: float) -> float:
        share = (math.log(epsilon) - low) / (high - low) if high > low else 0.5
        return left + (right - left) * share

    placed = {
        name: tuple(
            (x(epsilon), axis.between(bottom, top, value)) for epsilon, value in sorted(each)
        )
        for name, each in curves.items()
        if each
    }
    label_y, last = {}, -math.inf
    for name in sorted(placed, key=lambda each: placed[each][-1][1]):
        last = label_y[name] = max(placed[name][-1][1], last + _LABEL_GAP)
    return CurvePlot(
        name="curves",
        title=f"{unit} over epsilon",
        unit=unit,
        width=720,
        height=350,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=tuple((x(epsilon), f"{epsilon:g}") for epsilon in epsilons),
        y_ticks=tuple((axis.between(bottom, top, tick), axis.label(tick)) for tick in axis.ticks),
        curves=tuple(
            Curve(
                label=name,
                title=f"{name}: "
                + ", ".join(
                    f"{value:.3f} at {epsilon:g}" for epsilon, value in sorted(curves[name])
                ),
                best=name == best,
                dash=_DASHES[place % len(_DASHES)],
                points=placed[name],
                label_y=label_y[name],
            )
            for place, name in enumerate(placed)
        ),
    )
