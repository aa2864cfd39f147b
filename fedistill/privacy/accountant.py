"""Epsilon of everything that was ever released, by `dp_accounting`'s Rényi accountant.

The rule that charges (`within_budget`) and the rule that plans (`calibrate_rho`) both ask
`RdpAccountant`: a closed form calibrated apart was seen to cost 0.5000013 of a budget of 0.5.

Composition across runs is adaptive: the server picks a question after it has seen earlier
answers. Sums of Rényi divergences at one order fixed beforehand stay valid then (Feldman and
Zrnic 2021, "Individual Privacy Accounting via a Rényi Filter"); the best order picked
afterwards need not. So `within_budget` fixes the order by the budget alone.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedistill.errors import ConfigError
from fedistill.privacy.adjacency import Adjacency

if TYPE_CHECKING:
    from dp_accounting import DpEvent

MAX_DELTA = 1e-3
"""Largest delta that is accepted: with probability delta a guarantee may say nothing."""

SPLIT_MARGIN = 1e-9
"""Relative part of rho that `calibrate_rho` leaves unspent: the rounding errors of summing up to a
million parts of it, 2**-53 each, stay below."""


def epsilon_of(events: "DpEvent | Iterable[DpEvent]", delta: float, adjacency: Adjacency) -> float:
    """Epsilon at `delta` of the composition of `events`, under `adjacency`.

    The smallest over a grid of Rényi orders, by Canonne, Kamath and Steinke 2020, "The Discrete
    Gaussian for Differential Privacy", Proposition 12. For zCDP events it exceeds the optimum over
    all real orders by less than 1e-5 of its value.

    Raises:
        ConfigError: `delta` is outside (0, 1e-3], or the accountant cannot account for an event
            under this adjacency.
    """
    check_delta(delta)
    composed = _as_tuple(events)
    if any(map(_is_sampled, composed)):
        return float(_compose(composed, _coarse_orders(), adjacency).get_epsilon(delta))
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    # Only the choice of the order is ours: dp_accounting's epsilon at any order is one that holds.
    # At the lowest it also knows a divergence so small that epsilon is 0.
    orders = _fine_orders()
    rdp = _compose(composed, orders, adjacency).rdp
    chosen = [0, int(np.argmin(rdp + _conversion(delta)))]
    return float(compute_epsilon(orders[chosen], rdp[chosen], delta)[0])


def within_budget(
    spent: Sequence["DpEvent"],
    asked: "DpEvent",
    *,
    budget_epsilon: float,
    delta: float,
    adjacency: Adjacency,
) -> bool:
    """Whether `asked` may follow `spent` in a budget of (`budget_epsilon`, `delta`).

    A first event was declared before anything was seen and may use its best order. Later ones
    compose at the order that is best for a zCDP release of the whole budget, which loses nothing
    for zCDP and Gaussian events. (An event that only fits at its own best order leaves no room at
    the fixed one, so nothing can follow it and the two rules do not mix.)

    Raises:
        ConfigError: as `epsilon_of`, or `budget_epsilon` is not positive and finite.
    """
    if not spent:
        check_epsilon(budget_epsilon, "budget_epsilon")
        return epsilon_of(asked, delta, adjacency) <= budget_epsilon
    order = np.array([_filter_order(budget_epsilon, delta, adjacency)])
    composed = _compose((*spent, asked), order, adjacency)
    return float(composed.get_epsilon(delta)) <= budget_epsilon


def largest_epsilon_left(
    spent: Sequence["DpEvent"], *, budget_epsilon: float, delta: float, adjacency: Adjacency
) -> float:
    """Epsilon of the largest single zCDP release that still fits after `spent`.

    More than `budget_epsilon` minus the epsilon of `spent`: epsilons do not add, rho does.
    """
    whole = calibrate_rho(budget_epsilon, delta, adjacency)
    if not spent:
        return budget_epsilon
    order = _filter_order(budget_epsilon, delta, adjacency)
    used = float(_compose(tuple(spent), np.array([order]), adjacency).rdp[0]) / order
    left = (whole - used) * (1 - SPLIT_MARGIN)
    if left <= 0:
        return 0.0
    return min(budget_epsilon, epsilon_of(_zcdp(left), delta, adjacency))


@lru_cache(maxsize=256)
def calibrate_rho(
    epsilon: float, delta: float, adjacency: Adjacency = Adjacency.ADD_REMOVE
) -> float:
    """The largest zCDP rho that `epsilon_of` charges at most `epsilon`, less a margin of 1e-9.

    Found by bisection on `epsilon_of` itself, so the charge never exceeds `epsilon`, neither in one
    event nor in a million equal parts.

    Raises:
        ConfigError: `epsilon` is not positive and finite, or `delta` is outside (0, 1e-3].
    """
    check_epsilon(epsilon)
    check_delta(delta)

    def fits(rho: float) -> bool:
        return epsilon_of(_zcdp(rho), delta, adjacency) <= epsilon

    high = epsilon
    while fits(high):
        high *= 2
    low = high / 2
    while not fits(low):
        low, high = low / 2, low
    while high - low > SPLIT_MARGIN * low / 4:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * (1 - SPLIT_MARGIN)


def check_epsilon(epsilon: float, field: str = "epsilon") -> None:
    """Raise ConfigError unless 0 < epsilon < infinity."""
    if not 0 < epsilon < math.inf:
        raise ConfigError(
            f"{field}={epsilon} must be a positive number: at 0 nothing can be learned, "
            "and common choices lie between 0.1 and 10"
        )


def check_delta(delta: float) -> None:
    """Raise ConfigError unless 0 < delta <= 1e-3."""
    if not 0 < delta <= MAX_DELTA:
        raise ConfigError(
            f"delta={delta} must be above 0 and at most {MAX_DELTA:g}: choose one below "
            "1 / (number of units), such as 1e-5"
        )


def _zcdp(rho: float) -> "DpEvent":
    from dp_accounting import ZCDpEvent

    return ZCDpEvent(rho)


def _as_tuple(events: "DpEvent | Iterable[DpEvent]") -> "tuple[DpEvent, ...]":
    from dp_accounting import DpEvent

    return (events,) if isinstance(events, DpEvent) else tuple(events)


def _is_sampled(event: "DpEvent") -> bool:
    from dp_accounting import ComposedDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

    if isinstance(event, ComposedDpEvent):
        return any(map(_is_sampled, event.events))
    if isinstance(event, SelfComposedDpEvent):
        return _is_sampled(event.event)
    return isinstance(event, PoissonSampledDpEvent)


@cache
def _fine_orders() -> npt.NDArray[np.float64]:
    """Orders for curves that are linear in the order; the conversion needs order > 1.01.

    With rho * x + L / x to minimise over x = order - 1, a grid whose neighbours differ by 0.5% is
    at most (0.0025)**2 / 2 = 3e-6 above the optimum.
    """
    return 1 + np.geomspace(0.0101, 1e7, 4200)


@lru_cache(maxsize=16)
def _conversion(delta: float) -> npt.NDArray[np.float64]:
    """What Proposition 12 adds to the divergence at each fine order, to get epsilon."""
    orders = _fine_orders()
    added: npt.NDArray[np.float64] = np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return added


@cache
def _coarse_orders() -> npt.NDArray[np.float64]:
    """Orders for Poisson-sampled events, each of which costs a series of up to 1,000 terms."""
    from dp_accounting.rdp import rdp_privacy_accountant

    return np.array(rdp_privacy_accountant.DEFAULT_RDP_ORDERS, dtype=np.float64)


@lru_cache(maxsize=256)
def _filter_order(budget_epsilon: float, delta: float, adjacency: Adjacency) -> float:
    """The order at which a zCDP release of the whole budget is charged."""
    whole = _zcdp(calibrate_rho(budget_epsilon, delta, adjacency))
    composed = _compose((whole,), _fine_orders(), adjacency)
    return float(composed.get_epsilon_and_optimal_order(delta)[1])


@contextmanager
def _without_notes_on_orders() -> Iterator[None]:
    """The accountant logs every order whose series did not end and leaves it out, which is safe."""

    def other(record: logging.LogRecord) -> bool:
        return "Excluding this order" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _compose(
    events: "tuple[DpEvent, ...]", orders: npt.NDArray[np.float64], adjacency: Adjacency
) -> Any:
    # dp_accounting takes a second to import, which commands that only read should not pay.
    from dp_accounting import NeighboringRelation, UnsupportedEventError
    from dp_accounting.rdp import RdpAccountant

    relation = {
        Adjacency.ADD_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
        Adjacency.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
    }[adjacency]
    accountant = RdpAccountant(orders, relation)
    with _without_notes_on_orders():
        for event in events:
            try:
                accountant.compose(event)
            except UnsupportedEventError as error:
                raise ConfigError(
                    f"event={event} cannot be accounted for under adjacency={adjacency}: choose a "
                    "mechanism whose guarantee is stated for this adjacency"
                ) from error
    return accountant
