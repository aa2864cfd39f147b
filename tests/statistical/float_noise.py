"""Where Opacus and InterpretML make floating-point noise, tapped as the exact sampler is.

Both are asked for noise after the exact sum is known, and add it to the sum themselves. So what
is given to them is the noised sum that a sampler wants, less the exact one.
"""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from interpret.utils._native import Native
from opacus.optimizers import optimizer

Noising = Callable[[list[float]], list[float]]
Tap = Callable[[Callable[[float], Noising], float], Noising]
"""What really makes noise of a scale, and the scale asked for, to what shall make it."""

_OPACUS = optimizer._generate_noise
_INTERPRET = Native.generate_gaussian_random


def tap_opacus(patch: pytest.MonkeyPatch, tap: Tap) -> None:
    """The noise in each sum of gradients, whose exact value is the `reference` of its shape."""

    def noise(
        std: float,
        reference: torch.Tensor,
        generator: torch.Generator | None = None,
        secure_mode: bool = False,
    ) -> torch.Tensor:
        def real(scale: float) -> Noising:
            made = _OPACUS(scale, reference, generator, secure_mode).double().flatten()
            return lambda exact: (torch.tensor(exact, dtype=torch.float64) + made).tolist()

        exact = reference.double().flatten()
        noised = torch.tensor(tap(real, std)(exact.tolist()), dtype=torch.float64)
        return (noised - exact).reshape(reference.shape).to(reference.dtype)

    patch.setattr(optimizer, "_generate_noise", noise)


def tap_interpret(patch: pytest.MonkeyPatch, tap: Tap) -> None:
    """The noise in each histogram and in the sums of each boosting step."""

    def noise(native: Native, rng: object, stddev: float, count: int) -> np.ndarray:
        def real(scale: float) -> Noising:
            made = _INTERPRET(native, rng, scale, count)
            return lambda exact: (np.array(exact) + made).tolist()

        exact = _noised_by_the_caller(count)
        return np.array(tap(real, float(stddev))(exact.tolist())) - exact

    patch.setattr(Native, "generate_gaussian_random", noise)


def _noised_by_the_caller(count: int) -> np.ndarray:
    """The exact values that whoever asks for noise is about to add it to, (count,).

    InterpretML passes their number alone, so they are read where it keeps them.
    """
    asking = sys._getframe(2).f_locals
    if "uniform_weights" in asking:  # `private_numeric_binning`
        exact = asking["uniform_weights"]
    else:  # `boost`: all bins of a section hold its sum
        exact = asking["term_update_tensor"][[int(start) for start in asking["splits_iter"][:-1]]]
    assert len(exact) == count
    return np.array(exact, np.float64)
