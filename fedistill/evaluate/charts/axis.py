"""Axes of round numbers."""

import math
from dataclasses import dataclass

MOST_ROWS = 24
"""So many sites are drawn; the tables have all."""

_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis from `low` to `high` with labelled `ticks`, whose signs show when `signed`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int
    signed: bool = False

    def place(self, value: float) -> float:
        """Where `value` lies, 0 at the low end and 1 at the high end, held within the axis."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def between(self, start: float, end: float, value: float) -> float:
        """Where `value` lies when the axis runs from `start` to `end` in pixels."""
        return start + (end - start) * self.place(value)

    def label(self, tick: float) -> str:
        """The tick's label."""
        if self.signed and tick == 0:
            return "0"
        text = f"{tick:+.{self.digits}f}" if self.signed else f"{tick:.{self.digits}f}"
        return text.replace("-", "\N{MINUS SIGN}")


def axis_around(
    low: float,
    high: float,
    *,
    most_ticks: int,
    floor: float = 0.0,
    ceiling: float = 1.0,
    least_span: float = 0.04,
    signed: bool = False,
) -> Axis:
    """An axis of round numbers around [low, high], inside [floor, ceiling].

    It is never narrower than `least_span`, so that nothing looks larger than it is.
    """
    if high - low < least_span:
        middle = (low + high) / 2
        middle = min(max(middle, floor + least_span / 2), ceiling - least_span / 2)
        low, high = middle - least_span / 2, middle + least_span / 2
    for step in _STEPS:
        # The slack keeps a bound that is a tick already, up to float error, from adding another.
        first, last = math.floor(low / step + _SLACK), math.ceil(high / step - _SLACK)
        first = max(first, math.ceil(floor / step - _SLACK))
        last = min(last, math.floor(ceiling / step + _SLACK))
        if last - first < most_ticks:
            break
    ticks = tuple(round(place * step, 6) for place in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, digits=_digits(ticks), signed=signed)


def axis_from_zero(high: float, *, most_ticks: int) -> Axis:
    """An axis of round numbers from zero to at least `high`, of any size."""
    high = high if high > 0 else 1.0
    scale = 10.0 ** math.floor(math.log10(high / most_ticks))
    step = next(
        scale * factor for factor in (1, 2, 5, 10, 20) if high <= scale * factor * most_ticks
    )
    ticks = tuple(step * place for place in range(math.ceil(high / step - _SLACK) + 1))
    return Axis(low=0.0, high=ticks[-1], ticks=ticks, digits=max(0, -math.floor(math.log10(step))))


def shortened(name: str, most: int) -> str:
    """`name`, cut to `most` characters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _digits(ticks: tuple[float, ...]) -> int:
    fitting = (
        digits for digits in (2, 3) if all(abs(tick - round(tick, digits)) < 1e-7 for tick in ticks)
    )
    return next(fitting, 4)
