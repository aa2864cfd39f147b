"""The noise of `dp-sgd`: what noised sums of sampled gradients cost, and how little noise will do.

Law and source stand in the docstring of `dp_sgd`: a noised count, then T sums of gradients that are
clipped to C and Poisson-sampled at rate q, each with Gaussian noise of standard deviation C sigma.
"""

from functools import lru_cache

from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)

from fedistill.errors import PolicyRefusal
from fedistill.mechanisms.private_model import count_event
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Adjacency

_LARGEST_MULTIPLIER = 2.0**20
_PRECISION = 1e-4


def event_of(steps: int, rate: float, noise_multiplier: float, count_scale: float) -> DpEvent:
    """The cost of a noised count and of `steps` noised sums of sampled gradients."""
    step: DpEvent = GaussianDpEvent(noise_multiplier)
    if rate < 1:
        step = PoissonSampledDpEvent(rate, step)
    return ComposedDpEvent([count_event(count_scale), SelfComposedDpEvent(step, steps)])


@lru_cache(maxsize=64)
def calibrate_noise(
    epsilon: float, delta: float, steps: int, rate: float, count_scale: float
) -> float:
    """The smallest noise multiplier, to 1e-4 of it, whose event costs at most `epsilon`.

    By bisection on the accountant that charges.

    Raises:
        PolicyRefusal: None is large enough.
    """

    def fits(multiplier: float) -> bool:
        event = event_of(steps, rate, multiplier, count_scale)
        return epsilon_of(event, delta, Adjacency.ADD_REMOVE) <= epsilon

    high = 1.0
    while not fits(high):
        high *= 2
        if high > _LARGEST_MULTIPLIER:
            raise PolicyRefusal(
                f"sgd-steps={steps} at sgd-sampling-rate={rate} cannot be paid by "
                f"epsilon={epsilon}: lower sgd-steps"
            )
    low = high / 2
    while low > 2.0**-10 and fits(low):
        low, high = low / 2, low
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
