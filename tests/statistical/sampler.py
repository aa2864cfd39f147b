"""What makes noise, tapped and replaced: twins of it that are wrong on purpose.

`add_noise` asks one exact sampler for each vector that any of our own mechanisms noises, whatever
module calls. Opacus and InterpretML make the floating-point noise of `dp-sgd` and `dp-ebm`.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from fedistill.privacy import discrete_gaussian
from tests.statistical.float_noise import tap_interpret, tap_opacus

Noising = Callable[[list], list]
"""Exact numbers to noised ones, integers to integers."""

Source = Callable[[float], Noising]
"""What makes noise of a scale."""

Sampler = Callable[[Source, float], Noising]
"""What the mechanism would have made its noise with, and the scale it asks for."""

_DISCRETE: Source = discrete_gaussian._gaussian


def as_shipped(source: Source, scale: float) -> Noising:
    """The noise that the mechanism asks for."""
    return source(scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """A vector that was noised.

    Attributes:
        exact: (size,) int64, or float64 where a library noises floats; what a record's presence
            may move.
        noised: (size,) likewise, what may leave.
        scale: What the mechanism asked for, whatever the sampler then did.
    """

    exact: np.ndarray
    noised: np.ndarray
    scale: float

    @property
    def noise(self) -> np.ndarray:
        return self.noised - self.exact


class _NoMoreNoise(BaseException):
    """Ends a release whose post-processing nobody wants; no `except Exception` stops it."""


@contextmanager
def tapped(sampler: Sampler = as_shipped, *, stop_after: int | None = None) -> Iterator[list[Draw]]:
    """Let `sampler` make all noise within; gives the draws, in their order.

    `stop_after` so many draws the block ends.
    """
    draws: list[Draw] = []

    def listening(source: Source, scale: float) -> Noising:
        noising = sampler(source, scale)

        def noise(exact: list) -> list:
            noised = noising(exact)
            draws.append(Draw(exact=np.array(exact), noised=np.array(noised), scale=scale))
            if len(draws) == stop_after:
                raise _NoMoreNoise
            return noised

        return noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discrete_gaussian, "_gaussian", partial(listening, _DISCRETE))
        tap_opacus(patch, listening)
        tap_interpret(patch, listening)
        with suppress(_NoMoreNoise):
            yield draws


def draws_of(
    release: Callable[[], object], sampler: Sampler = as_shipped, *, times: int = 1
) -> list[list[Draw]]:
    """All that is noised in each of several releases, without what is computed from it later.

    The first release shows how many draws there are, so it is run to its end.
    """
    with tapped(sampler) as first:
        release()
    found = [first]
    for _ in range(times - 1):
        with tapped(sampler, stop_after=len(first)) as draws:
            release()
        found.append(draws)
    return found


def told(release: Callable[[], object], draws: Sequence[Draw]) -> list[Draw]:
    """What would have been noised in `release`, had it given what was given in `draws`."""
    earlier = iter(draws)
    with tapped(
        lambda source, scale: lambda exact: next(earlier).noised.tolist(), stop_after=len(draws)
    ) as found:
        release()
    return found


def shrunk(factor: float) -> Sampler:
    """Noise of a smaller scale than it is asked for."""
    return lambda source, scale: source(factor * scale)


_TORCH = torch.Generator()

SEEDED: dict[str, Callable[[], float]] = {
    "numpy": lambda: float(np.random.normal()),
    "random": lambda: random.gauss(0.0, 1.0),
    "torch": lambda: float(torch.randn((), dtype=torch.float64, generator=_TORCH)),
}
"""Generators that a program may seed: global ones, and one of torch, whose global one training
seeds from the operating system."""


def seeded(library: str) -> Sampler:
    """Noise of the right spread from a generator that a seed reaches."""
    normal = SEEDED[library]

    def noise_like(value: float, scale: float) -> float:
        noise = scale * normal()
        return round(noise) if isinstance(value, int) else noise

    return lambda source, scale: lambda exact: [value + noise_like(value, scale) for value in exact]


def seed_everything(seed: int = 0) -> None:
    """All global generators, and that of `seeded`, to one state."""
    np.random.seed(seed)
    random.seed(seed)
    torch.manual_seed(seed)
    _TORCH.manual_seed(seed)
