"""A closed set of privacy events as JSON: what a ledger may hold and an accountant may read back.

The kinds are named here, never looked up by a stored class name, and every parameter is checked
both ways: a negative count or rho would refund a budget.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedistill.errors import ConfigError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

EventJson = dict[str, Any]


def event_to_json(event: "DpEvent") -> EventJson:
    """A JSON object for `event`, which `event_from_json` turns into an equal event.

    Raises:
        ConfigError: the event, or one inside it, is of another kind or has a parameter out of
            bounds.
    """
    import dp_accounting as dp

    if type(event) is dp.NoOpDpEvent:
        return {"kind": "no-op"}
    if type(event) is dp.ZCDpEvent:
        rho = _non_negative("rho", event.rho)
        return {"kind": "zcdp", "rho": rho, "xi": _non_negative("xi", event.xi)}
    if type(event) is dp.GaussianDpEvent:
        return {"kind": "gaussian", "noise_multiplier": _multiplier(event.noise_multiplier)}
    if type(event) is dp.SelfComposedDpEvent:
        inner = event_to_json(event.event)
        return {"kind": "self-composed", "count": _count(event.count), "event": inner}
    if type(event) is dp.ComposedDpEvent:
        return {"kind": "composed", "events": [event_to_json(part) for part in event.events]}
    if type(event) is dp.PoissonSampledDpEvent:
        inner = event_to_json(event.event)
        rate = _rate(event.sampling_probability)
        return {"kind": "poisson-sampled", "sampling_probability": rate, "event": inner}
    raise ConfigError(
        f"event={type(event).__name__} is not one that a ledger holds: use ZCDp, Gaussian, "
        "PoissonSampled, Composed, SelfComposed or NoOp"
    )


def event_from_json(value: Mapping[str, Any]) -> "DpEvent":
    """The event that `event_to_json` wrote.

    Raises:
        ConfigError: an unknown kind, other fields than the kind has, or a parameter out of bounds.
    """
    import dp_accounting as dp

    if not isinstance(value, Mapping):
        raise ConfigError(f"event={value!r} must be a JSON object")
    fields = {key: value[key] for key in value if key != "kind"}
    match value.get("kind"), sorted(fields):
        case "no-op", []:
            return dp.NoOpDpEvent()
        case "zcdp", ["rho", "xi"]:
            rho = _non_negative("rho", fields["rho"])
            return dp.ZCDpEvent(rho, _non_negative("xi", fields["xi"]))
        case "gaussian", ["noise_multiplier"]:
            return dp.GaussianDpEvent(_multiplier(fields["noise_multiplier"]))
        case "self-composed", ["count", "event"]:
            return dp.SelfComposedDpEvent(event_from_json(fields["event"]), _count(fields["count"]))
        case "composed", ["events"] if isinstance(fields["events"], list):
            return dp.ComposedDpEvent([event_from_json(part) for part in fields["events"]])
        case "poisson-sampled", ["event", "sampling_probability"]:
            rate = _rate(fields["sampling_probability"])
            return dp.PoissonSampledDpEvent(rate, event_from_json(fields["event"]))
    raise ConfigError(
        f"event kind={value.get('kind')!r} with fields {sorted(fields)} is none that this version "
        "reads: use the version of fedistill that wrote it"
    )


def _number(field: str, value: Any) -> float:
    # bool is an int to Python; numpy's floats are floats to it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{field}={value!r} must be a finite number")
    return float(value)


def _non_negative(field: str, value: Any) -> float:
    if (number := _number(field, value)) < 0:
        raise ConfigError(f"{field}={number} must be at least 0: a release never refunds")
    return number


def _multiplier(value: Any) -> float:
    if (number := _number("noise_multiplier", value)) <= 0:
        raise ConfigError(f"noise_multiplier={number} must be above 0: without noise, no guarantee")
    return number


def _rate(value: Any) -> float:
    if not 0 < (number := _number("sampling_probability", value)) <= 1:
        raise ConfigError(f"sampling_probability={number} must be above 0 and at most 1")
    return number


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"count={value!r} must be a whole number of at least 1")
    return value
