"""The forest plot of what each site gains from joining."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedistill.evaluate import gains
from fedistill.evaluate.charts.axis import MOST_ROWS, Axis, axis_around, shortened
from fedistill.evaluate.comparison import Comparison
from fedistill.evaluate.metrics import Difference

_LINE = {"wide": 22.0, "narrow": 18.0}
_GAP = {"wide": 16.0, "narrow": 10.0}
_HEAD = {"wide": 0.0, "narrow": 20.0}


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One interval: `plain` against the site's own model, `private` against its DP model.

    `clear` when the interval excludes zero. `x`, `low` and `high` are pixels, None where not
    defined.
    """

    kind: str
    title: str
    value: str
    clear: bool
    y: float
    x: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One site with its two intervals."""

    label: str
    label_y: float
    gains: tuple[Gain, ...]


@dataclass(frozen=True, kw_only=True)
class ForestPlot:
    """A forest plot in pixels. `zero` is the line of no difference."""

    name: str
    layout: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    zero: float
    axis: Axis
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[ForestRow, ...]
    omitted: int


def forest_plot(
    comparisons: Mapping[str, Comparison], *, name: str, narrow: bool
) -> ForestPlot | None:
    """AUC of the shared student less that of a site's own models, with 95% intervals.

    Args:
        comparisons: By site; the first 24 are drawn.
        name: Tells several plots on one page apart.
        narrow: Places for a narrow screen: names above the intervals, values left to the table.

    Returns:
        None when no difference is defined.
    """
    shown = dict(list(comparisons.items())[:MOST_ROWS])
    ends = [
        end
        for each in shown.values()
        for gain in (each.gain, each.gain_private)
        if gain.value is not None
        for end in gains.interval(gain) or (gain.value,)
    ]
    if not ends:
        return None
    axis = axis_around(
        max(min(*ends, 0.0), -1.0),
        min(max(*ends, 0.0), 1.0),
        most_ticks=5 if narrow else 8,
        floor=-1.0,
        signed=True,
    )
    layout = "narrow" if narrow else "wide"
    width, left, right = (360, 12.0, 348.0) if narrow else (760, 190.0, 620.0)
    line, top, rows = _LINE[layout], 26.0, []
    y = top + 8
    for site, each in shown.items():
        first = y + _HEAD[layout] + line / 2
        label_y = y + 10 if narrow else first + line / 2
        pair = (("plain", each.gain), ("private", each.gain_private))
        rows.append(
            ForestRow(
                label=shortened(site, 34 if narrow else 22),
                label_y=label_y,
                gains=tuple(
                    _placed(site, kind, gain, axis, (left, right), first + place * line)
                    for place, (kind, gain) in enumerate(pair)
                ),
            )
        )
        y = first + 1.5 * line + _GAP[layout]
    bottom = y - _GAP[layout] + 8
    return ForestPlot(
        name=name,
        layout=layout,
        width=width,
        height=round(bottom + 44),
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        zero=axis.between(left, right, 0.0),
        axis=axis,
        ticks=tuple((axis.between(left, right, tick), axis.label(tick)) for tick in axis.ticks),
        rows=tuple(rows),
        omitted=len(comparisons) - len(shown),
    )


def _placed(
    site: str, kind: str, gain: Difference, axis: Axis, ends: tuple[float, float], y: float
) -> Gain:
    reach = gains.interval(gain)
    against = "with" if kind == "private" else "without"
    return Gain(
        kind=kind,
        title=f"{site}, against its own model {against} DP: {gains.with_error(gain)}, "
        f"{gains.verdict(gain)}",
        value=gains.with_error(gain),
        clear=gains.verdict(gain) in (gains.GAINS, gains.LOSES),
        y=y,
        x=None if gain.value is None else axis.between(*ends, gain.value),
        low=None if reach is None else axis.between(*ends, reach[0]),
        high=None if reach is None else axis.between(*ends, reach[1]),
    )
