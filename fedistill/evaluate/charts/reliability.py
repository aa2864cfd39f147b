"""The reliability diagram: what was predicted against what was so."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedistill.evaluate.calibration import CalibrationBin
from fedistill.evaluate.charts.axis import Axis, axis_around


@dataclass(frozen=True, kw_only=True)
class ReliabilityPoint:
    """One bin in pixels: `y` is what was observed, from `low` to `high` its 95% interval."""

    title: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ReliabilityPlot:
    """A square plot in pixels whose two axes are the same; the diagonal joins its corners."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    axis: Axis
    ticks: tuple[tuple[float, float, str], ...]
    points: tuple[ReliabilityPoint, ...]


def reliability_plot(bins: Sequence[CalibrationBin]) -> ReliabilityPlot | None:
    """The reliability diagram of `bins`. None without bins."""
    if not bins:
        return None
    low = min(min(each.predicted, each.low) for each in bins)
    high = max(max(each.predicted, each.high) for each in bins)
    axis = axis_around(low, high, most_ticks=6, least_span=0.1)
    left, right, top, bottom = 58.0, 348.0, 12.0, 302.0
    return ReliabilityPlot(
        width=360,
        height=350,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        axis=axis,
        ticks=tuple(
            (axis.between(left, right, tick), axis.between(bottom, top, tick), axis.label(tick))
            for tick in axis.ticks
        ),
        points=tuple(
            ReliabilityPoint(
                title=f"predicted {each.predicted:.3f}, observed {each.observed:.3f} "
                f"({each.low:.3f} to {each.high:.3f}) in {each.rows:,} rows",
                x=axis.between(left, right, each.predicted),
                y=axis.between(bottom, top, each.observed),
                low=axis.between(bottom, top, each.low),
                high=axis.between(bottom, top, each.high),
            )
            for each in bins
        ),
    )
