"""Which units a site holds out: a part of its own, secret, and of each unit by itself."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.site.holding_out import hold_out
from tests.mechanisms.toy import make_rows, without_rows

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def rows_in(part) -> set[bytes]:
    return {row.tobytes() for row in part.rows}


def test_every_row_is_in_one_part_in_the_order_of_the_whole() -> None:
    rows = make_rows(500)
    parts = hold_out(rows, 0.3, KEY)
    assert len(parts.learned_from.rows) + len(parts.held_out.rows) == 500
    assert not rows_in(parts.learned_from) & rows_in(parts.held_out)
    for part in (parts.learned_from, parts.held_out):
        places = [int(np.flatnonzero((rows.rows == row).all(axis=1))[0]) for row in part.rows]
        assert places == sorted(places)
        np.testing.assert_array_equal(part.labels, rows.labels[places])


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_about_the_share_that_was_asked_is_held_out(fraction: float) -> None:
    """With a fixed key; five standard deviations of independent units."""
    held = len(hold_out(make_rows(4_000), fraction, KEY).held_out.rows)
    assert abs(held - 4_000 * fraction) < 5 * np.sqrt(4_000 * fraction * (1 - fraction))


def test_another_key_holds_out_others() -> None:
    rows = make_rows(500)
    one, other = (hold_out(rows, 0.3, key) for key in (KEY, Ed25519PrivateKey.generate()))
    assert rows_in(one.held_out) != rows_in(other.held_out)
    again = hold_out(rows, 0.3, KEY)
    assert rows_in(again.held_out) == rows_in(one.held_out)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=5, unique=True))
def test_a_larger_share_holds_out_more_and_releases_none(thousandths: list[int]) -> None:
    """Whoever raises the share never scores on fewer, nor learns from what was held out."""
    rows = make_rows(200)
    held = [rows_in(hold_out(rows, each / 1000, KEY).held_out) for each in sorted(thousandths)]
    assert all(less <= more for less, more in pairwise(held))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_unit_that_leaves_moves_no_other(data) -> None:
    """Units with several rows, equal rows without units: the others stay where they are."""
    rows = make_rows(60, seed=data.draw(st.integers(0, 99)))
    rows = rows.take(np.array(data.draw(st.lists(st.integers(0, 59), min_size=20, max_size=40))))
    if data.draw(st.booleans()):
        size = len(rows.rows)
        units = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
        rows = replace(rows, units=np.array(units))
        gone = rows.units == rows.units[0]
        rest = rows.take(np.flatnonzero(~gone))
        for before, after in zip(_parts(rows), _parts(rest), strict=True):
            kept = [row for row in before if row[0] != rows.units[0]]
            assert after == kept
        return
    rest = rows.take(np.arange(1, len(rows.rows)))
    sizes = [(len(b), len(a)) for b, a in zip(_parts(rows), _parts(rest), strict=True)]
    assert sorted(before - after for before, after in sizes) == [0, 1]


def _parts(rows) -> list[list[tuple[int, bytes]]]:
    parts = hold_out(rows, 0.4, KEY)
    return [
        [
            (0 if part.units is None else int(part.units[place]), part.rows[place].tobytes())
            for place in range(len(part.rows))
        ]
        for part in (parts.learned_from, parts.held_out)
    ]


def test_no_unit_is_in_both_parts() -> None:
    rows = replace(make_rows(300), units=np.arange(300) // 5)
    parts = hold_out(rows, 0.3, KEY)
    assert not set(parts.learned_from.units) & set(parts.held_out.units)


def test_no_rows_are_two_parts_of_none() -> None:
    parts = hold_out(without_rows(), 0.3, KEY)
    assert len(parts.learned_from.rows) == len(parts.held_out.rows) == 0
