"""The rounds of `dp-probe`: how many sums each solver noises, and how each sum is bounded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedistill.data.wording import suggestion
from fedistill.errors import PolicyRefusal
from fedistill.features import FEATURE_STEP
from fedistill.labels import LabelQuestion

RESIDUAL_STEP = 2.0**-14
"""Residuals are integers in steps of this."""

GRADIENT_STEP = FEATURE_STEP * RESIDUAL_STEP
"""And so are sums of features times residuals, in steps of 2^-30."""

COUNT_SHARE = 0.01
"""Share of rho that pays for the noised count of units."""

CLIP = 0.7
"""L2 bound on a record's gradient phi(x) (e_y - p)^T; without clipping it is below sqrt(2)."""

ROUNDS: Mapping[str, tuple[int, ...]] = {
    "combined": (1, 3, 10),
    "gradient": (6, 6, 6),
    "moment": (1, 1, 1),
}
"""The solvers, and their rounds at faint, common and large sites unless the question says."""

FAINT_SIGNAL = 15.0
"""A site is faint below so many noised units times the square root of rho."""

LARGE_SITE = 8_000
"""Noised units from which on a site is large."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One noised sum: its sensitivity and noise scale, in steps of 2^-30."""

    clip: int
    scale: float

    @property
    def std(self) -> float:
        """Noise of the sum, in the units of the gradient."""
        return self.scale * GRADIENT_STEP

    @property
    def rho(self) -> float:
        """What it costs, in zCDP."""
        return 0.5 * (self.clip / self.scale) ** 2


def clips_of(question: LabelQuestion) -> tuple[tuple[int, ...], ...]:
    """L2 bounds of the rounds' contributions at faint, common and large sites, in steps of 2^-30.

    Raises:
        PolicyRefusal: See `DPProbe.plan`.
    """
    solver, asked = question.solver, question.probe_steps
    if solver not in ROUNDS:
        raise PolicyRefusal(f"solver={solver!r} must be a solver: {suggestion(solver, ROUNDS)}")
    if solver == "moment" and asked > 1:
        raise PolicyRefusal(
            f"probe-steps={asked} must be 1 with solver='moment': leave it out, or choose "
            "'combined'"
        )
    first = CLIP if solver == "gradient" else moment_clip(question.num_classes)
    return tuple(
        tuple(math.floor(clip / GRADIENT_STEP) for clip in (first, *[CLIP] * (rounds - 1)))
        for rounds in (ROUNDS[solver] if asked == 0 else (asked,) * 3)
    )


def moment_clip(num_classes: int) -> float:
    """L2 norm of phi (e_y - 1/K)^T at most, for features phi of norm at most 1."""
    return math.sqrt(1 - 1 / num_classes)
