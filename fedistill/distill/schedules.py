"""Temperature, alpha and learning rate as functions of the step.

A schedule is a frozen value with `at(step) -> float`; whether steps are batches, epochs or stages
is for its user to say. Steps count from 0.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from fedistill.errors import ConfigError


class Schedule(Protocol):
    """A number for each step."""

    def at(self, step: int) -> float:
        """The value at `step`, which counts from 0."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def at(self, step: int) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Constant from each start to the next.

    Attributes:
        values: One for each stretch.
        starts: First step of each stretch, ascending from 0.
    """

    values: tuple[float, ...]
    starts: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.starts, self.starts[1:], strict=False))
        if not self.starts or self.starts[0] != 0 or not ascending:
            raise ConfigError(f"starts={self.starts} must ascend from 0: begin with 0, repeat none")
        if len(self.values) != len(self.starts):
            raise ConfigError(
                f"values={self.values} must be as many as starts={self.starts}: give one each"
            )

    def at(self, step: int) -> float:
        """The value of the stretch that holds `step`; the last one goes on for ever."""
        return self.values[bisect_right(self.starts, step) - 1]


@dataclass(frozen=True, kw_only=True)
class Rising:
    """`first` during the warm-up, then `by` more at each step until `last`.

    A student that starts on the teacher's sharp answers and ends on its soft ones.

    Attributes:
        first: Value of the warm-up.
        last: Greatest value.
        by: Rise a step, above 0.
        warm_up: Steps at `first` before the rise begins.
    """

    first: float = 5.0
    last: float = 8.0
    by: float = 0.1
    warm_up: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last < math.inf:
            raise ConfigError(
                f"first={self.first} must be above 0 and at most last={self.last}: lower it"
            )
        if not self.by > 0:
            raise ConfigError(f"by={self.by} must be above 0: use Constant for no rise")
        if self.warm_up < 0:
            raise ConfigError(f"warm_up={self.warm_up} must be at least 0: use 0 for none")

    def at(self, step: int) -> float:
        """The value at `step`."""
        return min(self.last, self.first + self.by * max(0, step - self.warm_up))


def falling_by_stage(
    *, stages: int, length: int, first: float = 4.0, by: float = 1.0, least: float = 1.0
) -> Steps:
    """A temperature that falls by `by` from stage to stage: coarse structure first, then detail.

    Args:
        stages: How many, at least 1.
        length: Steps of each, at least 1.
        first: Temperature of the first stage.
        by: Fall from a stage to the next, at least 0.
        least: Temperature that is never gone below, above 0.
    """
    for name, value in {"stages": stages, "length": length}.items():
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1: raise it")
    if by < 0 or not 0 < least <= first:
        raise ConfigError(
            f"by={by} must be at least 0 and least={least} above 0 and at most first={first}: "
            "use Rising for a temperature that rises"
        )
    values = tuple(max(least, first - by * stage) for stage in range(stages))
    return Steps(values=values, starts=tuple(length * stage for stage in range(stages)))


def alpha_ramp(*, hard_until: int, mixed_until: int, labelled: bool = True) -> Schedule:
    """Share of the soft loss in `hard_and_soft`: 0, then 0.3, then 0.7.

    Args:
        hard_until: First step with soft labels, at least 1.
        mixed_until: First step at 0.7, above `hard_until`.
        labelled: Whether public rows with hard labels exist. Without them alpha is 1 throughout.
    """
    if not labelled:
        return Constant(1.0)
    if not 0 < hard_until < mixed_until:
        raise ConfigError(
            f"hard_until={hard_until} must be at least 1 and below mixed_until={mixed_until}: "
            "lower it"
        )
    return Steps(values=(0.0, 0.3, 0.7), starts=(0, hard_until, mixed_until))


def cosine_with_warm_up(optimizer: Optimizer, *, warm_up: int, total: int) -> LRScheduler:
    """The optimizer's learning rate, rising linearly and then falling along a cosine to zero.

    Step s of the warm-up runs at (s + 1) / (warm_up + 1) of the full rate. Loshchilov and Hutter
    2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", section 3, without restarts; the
    warm-up is that of Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2.

    Args:
        optimizer: Its learning rate at the call is the full one.
        warm_up: Steps before the full rate, at least 0.
        total: Steps in all, above `warm_up`. `step()` is called after each.
    """
    if not 0 <= warm_up < total:
        raise ConfigError(f"warm_up={warm_up} must be at least 0 and below total={total}: lower it")
    fall = CosineAnnealingLR(optimizer, T_max=total - warm_up)
    if warm_up == 0:
        return fall
    rise = LinearLR(optimizer, start_factor=1 / (warm_up + 1), total_iters=warm_up)
    return SequentialLR(optimizer, [rise, fall], milestones=[warm_up])


@dataclass(frozen=True, kw_only=True)
class TemperatureSearch:
    """What a search found.

    Attributes:
        best: The temperature of the greatest score, the lowest of several.
        scores: By temperature, in the order of the candidates.
    """

    best: float
    scores: Mapping[float, float]


def search_temperature(
    candidates: Sequence[float], score: Callable[[float], float]
) -> TemperatureSearch:
    """The temperature that scores best on public validation rows, tried one by one.

    Args:
        candidates: Above 0; each is scored once.
        score: The higher, the better; never a score on the test rows. A score that is NaN loses.

    Raises:
        ConfigError: No candidate, one that is not above 0, or none with a score.
    """
    if not candidates or not all(0 < each < math.inf for each in candidates):
        raise ConfigError(f"candidates={tuple(candidates)} must be above 0: give at least one")
    scores = {each: score(each) for each in candidates}
    scored = [each for each, value in scores.items() if not math.isnan(value)]
    if not scored:
        raise ConfigError(f"no score of candidates={tuple(candidates)} is a number: try others")
    return TemperatureSearch(
        best=min(scored, key=lambda each: (-scores[each], each)), scores=scores
    )
