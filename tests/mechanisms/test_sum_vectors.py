"""Division, bounds and noise of what is summed over sites mod 2^32."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.mechanisms import sum_vectors
from fedistill.mechanisms.sum_vectors import (
    FINENESS,
    divided,
    divided_sensitivity,
    divisor_for,
    has_room,
    largest_for,
    noised,
    opened,
    sum_vector,
)

entries_of = st.integers(1, 400)


def squared_length(moved: np.ndarray) -> int:
    return int((moved.astype(object) ** 2).sum())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), entries_of, st.integers(1, 20))
def test_division_moves_by_at_most_the_stated_sensitivity(seed, entries, bits) -> None:
    """Any two sums, in exact integers; with parts of one length, the case that uses all of D."""
    random = np.random.default_rng(seed)
    whole = random.integers(-(2**40), 2**40, entries)
    part = random.integers(-(2**24), 2**24, entries)
    if seed % 2:
        part = np.full(entries, int(part[0]))
    moved = divided(whole, 2**bits) - divided(whole - part, 2**bits)
    assert squared_length(moved) <= divided_sensitivity(entries, squared_length(part), 2**bits)


@given(entries_of, st.integers(1, 40), st.integers(1, 2**20))
def test_the_worst_neighbour_moves_every_entry_by_nearly_one_more(entries, bits, steps) -> None:
    """Each entry stands on a step and loses a little more than `steps` of them."""
    divisor = 2**bits
    whole = np.full(entries, (steps + 2) * divisor)
    part = np.full(entries, steps * divisor + 1)
    moved = divided(whole, divisor) - divided(whole - part, divisor)
    assert (moved == steps + 1).all()
    claimed = divided_sensitivity(entries, squared_length(part), divisor)
    assert squared_length(moved) <= claimed
    # What rounding adds is needed: without it the bound would not hold.
    assert squared_length(moved) > squared_length(part) / divisor**2
    assert claimed <= squared_length(moved) * (1 + 8 / steps) + 4


@given(entries_of, st.integers(1, 2**80))
def test_rounding_costs_at_most_a_hundredth(entries: int, squared: int) -> None:
    divisor = divisor_for(entries, squared)
    grown = divided_sensitivity(entries, squared, divisor)
    if divisor == 1:
        assert grown == squared
        assert squared < (2 * FINENESS) ** 2 * entries
    else:
        assert grown * divisor**2 <= squared * (1 + 1 / FINENESS) ** 2 * (1 + 1e-3)
        assert squared >= (divisor * FINENESS) ** 2 * entries


def test_division_rounds_toward_zero_and_one_changes_nothing() -> None:
    exact = np.array([-9, -8, -7, 0, 7, 8, 9])
    np.testing.assert_array_equal(divided(exact, 8), [-1, -1, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(divided(exact, 1), exact)


@given(st.integers(1, 10_000))
def test_sums_over_sites_never_wrap(num_sites: int) -> None:
    assert num_sites * largest_for(num_sites) < 2**31
    assert (num_sites + 1) * (largest_for(num_sites) + 1) > 2**31


@pytest.mark.parametrize("value", [2**62, -(2**62), np.iinfo(np.int64).max, 2**31, 0])
def test_whatever_the_sum_what_is_sent_stays_within_its_bound(value: int) -> None:
    """PRIVACY rules 3 and 19: nothing raises, nothing wraps."""
    vector = sum_vector(50, 10**12, rho=0.01, honest=2)
    sent = noised(np.full(50, value), vector, largest_for(3))
    assert sent.dtype == np.int64
    assert np.abs(sent).max() <= largest_for(3)


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_clamping_brings_two_sums_no_further_apart(one: int, other: int) -> None:
    """What reaches the sampler, after division and clamp."""
    vector = sum_vector(1, 10**8, rho=0.01, honest=2)
    reached = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sum_vectors, "add_noise", lambda sums, scale: (reached.append(sums), sums)[1])
        for exact in (one, other):
            noised(np.array([exact]), vector, largest_for(3))
    first, second = (int(sums[0]) for sums in reached)
    assert abs(first - second) <= abs(one // vector.divisor - other // vector.divisor)
    assert max(first, second) <= largest_for(3) - 40 * vector.scale


def test_an_opened_sum_is_on_the_mechanisms_grid_again() -> None:
    vector = sum_vector(600, 2**62, rho=0.01, honest=2)
    exact = np.arange(600) * 2**40
    error = opened(divided(exact, vector.divisor), vector) - exact
    assert vector.divisor > 2**16
    assert np.abs(error).max() < vector.divisor
    assert vector.std(9) == 3 * vector.scale * vector.divisor


def test_room_is_left_for_the_sum() -> None:
    vector = sum_vector(600, 2**60, rho=1e-4, honest=1)
    assert has_room(vector, math.ceil(80 * vector.scale) + 1)
    assert not has_room(vector, math.floor(80 * vector.scale))
