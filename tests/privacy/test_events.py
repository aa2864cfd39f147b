"""Events as JSON: a closed set, checked both ways."""

import json
import math

import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    NonPrivateDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    ZCDpEvent,
)
from hypothesis import given
from hypothesis import strategies as st

from fedistill.errors import ConfigError
from fedistill.privacy.events import event_from_json, event_to_json

_POSITIVE = st.floats(1e-12, 1e12)
_EVENTS = st.recursive(
    st.one_of(
        st.just(NoOpDpEvent()),
        st.builds(ZCDpEvent, _POSITIVE, st.floats(0, 10)),
        st.builds(GaussianDpEvent, _POSITIVE),
    ),
    lambda inner: st.one_of(
        st.builds(SelfComposedDpEvent, inner, st.integers(1, 10**6)),
        st.builds(ComposedDpEvent, st.lists(inner, max_size=3)),
        st.builds(PoissonSampledDpEvent, st.floats(1e-6, 1), inner),
    ),
    max_leaves=5,
)


@given(_EVENTS)
def test_an_event_survives_json_bit_by_bit(event: DpEvent) -> None:
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_numbers_of_numpy_are_written_as_plain_ones() -> None:
    assert event_to_json(ZCDpEvent(np.float64(0.25))) == {"kind": "zcdp", "rho": 0.25, "xi": 0.0}


@pytest.mark.parametrize(
    "event",
    [
        LaplaceDpEvent(1.0),
        NonPrivateDpEvent(),
        ComposedDpEvent([ZCDpEvent(0.1), NonPrivateDpEvent()]),
        SelfComposedDpEvent(LaplaceDpEvent(1.0), 2),
    ],
)
def test_other_kinds_are_refused(event: DpEvent) -> None:
    with pytest.raises(ConfigError, match="not one that a ledger holds"):
        event_to_json(event)


@pytest.mark.parametrize(
    "event",
    [
        ZCDpEvent(-0.1),
        ZCDpEvent(0.1, -0.1),
        ZCDpEvent(math.nan),
        ZCDpEvent(math.inf),
        GaussianDpEvent(0.0),
        GaussianDpEvent(-1.0),
        SelfComposedDpEvent(ZCDpEvent(0.1), -1),
        SelfComposedDpEvent(ZCDpEvent(0.1), 0),
        SelfComposedDpEvent(ZCDpEvent(0.1), 1.5),
        PoissonSampledDpEvent(0.0, GaussianDpEvent(1.0)),
        PoissonSampledDpEvent(1.5, GaussianDpEvent(1.0)),
    ],
)
def test_no_event_refunds_or_says_nothing(event: DpEvent) -> None:
    with pytest.raises(ConfigError, match="must be"):
        event_to_json(event)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "laplace", "noise_multiplier": 1.0},
        {"kind": "zcdp", "rho": 0.1},
        {"kind": "zcdp", "rho": 0.1, "xi": 0.0, "count": 3},
        {"kind": "zcdp", "rho": "0.1", "xi": 0.0},
        {"kind": "zcdp", "rho": True, "xi": 0.0},
        {"kind": "composed", "events": {"kind": "no-op"}},
        {"kind": "composed", "events": ["no-op"]},
        {"kind": "self-composed", "count": -5, "event": {"kind": "no-op"}},
        "no-op",
    ],
)
def test_json_that_is_no_event_is_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        event_from_json(value)  # type: ignore[arg-type]
