"""The dot plot of test AUC: teachers, target, students and reference."""

from dataclasses import dataclass

from fedistill.evaluate import wording
from fedistill.evaluate.charts.axis import MOST_ROWS, Axis, axis_around, shortened
from fedistill.evaluate.metrics import Scores
from fedistill.evaluate.summary import Summary


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
        interval = _interval(scores)
        return Dot(
            kind=kind,
            label=shortened(name, 22 if not narrow else 26),
            title=f"{name}: AUC {wording.with_error(scores)}",
            value=wording.with_error(scores),
            y=y + (10 if narrow else 0),
            label_y=y - 8 if narrow else y,
            x=None if scores.auc is None else axis.between(left, right, scores.auc),
            low=axis.between(left, right, interval[0]) if len(interval) == 2 else None,
            high=axis.between(left, right, interval[1]) if len(interval) == 2 else None,
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
        ticks=tuple((axis.between(left, right, tick), axis.label(tick)) for tick in axis.ticks),
        dots=tuple(dots),
        reference=reference if reference is not None and reference.x is not None else None,
        omitted=max(0, len(teachers) - MOST_ROWS),
    )


def _interval(scores: Scores) -> tuple[float, ...]:
    if scores.auc is None:
        return ()
    error = scores.auc_standard_error
    return (scores.auc,) if error is None else (scores.auc - error, scores.auc + error)
