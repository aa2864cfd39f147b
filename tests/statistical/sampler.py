"""The one sampler of all exact noise, tapped and replaced: twins of it that are wrong on purpose.

`add_noise` asks it for each vector that any mechanism noises, whatever module calls.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedistill.privacy import discrete_gaussian

Noising = Callable[[list[int]], list[int]]
Sampler = Callable[[float], Noising]

EXACT: Sampler = discrete_gaussian._gaussian


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """A vector that was noised.

    Attributes:
        exact: (size,) int64, what a record's presence may move.
        noised: (size,) int64, what may leave.
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
def tapped(sampler: Sampler = EXACT, *, stop_after: int | None = None) -> Iterator[list[Draw]]:
    """Let `sampler` make all noise within; gives the draws, in their order.

    `stop_after` so many draws the block ends.
    """
    draws: list[Draw] = []

    def listening(scale: float) -> Noising:
        noising = sampler(scale)

        def noise(exact: list[int]) -> list[int]:
            noised = noising(exact)
            draws.append(Draw(exact=np.array(exact), noised=np.array(noised), scale=scale))
            if len(draws) == stop_after:
                raise _NoMoreNoise
            return noised

        return noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discrete_gaussian, "_gaussian", listening)
        with suppress(_NoMoreNoise):
            yield draws


def draws_of(
    release: Callable[[], object], sampler: Sampler = EXACT, *, times: int = 1
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
        lambda scale: lambda exact: next(earlier).noised.tolist(), stop_after=len(draws)
    ) as found:
        release()
    return found


def shrunk(factor: float) -> Sampler:
    """The exact sampler, of a smaller scale than it is asked for."""
    return lambda scale: EXACT(factor * scale)


SEEDED: dict[str, Callable[[], float]] = {
    "numpy": lambda: float(np.random.normal()),
    "random": lambda: random.gauss(0.0, 1.0),
    "torch": lambda: float(torch.randn((), dtype=torch.float64)),
}
"""Global generators that a program may seed."""


def seeded(library: str) -> Sampler:
    """Noise of the right spread from a generator that a seed reaches."""
    normal = SEEDED[library]
    return lambda scale: lambda exact: [value + round(scale * normal()) for value in exact]


def seed_everything(seed: int = 0) -> None:
    """All global generators to one state."""
    np.random.seed(seed)
    random.seed(seed)
    torch.manual_seed(seed)
