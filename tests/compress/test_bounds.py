"""Which file ships when size and latency are bounded."""

from dataclasses import replace

import pytest

from fedistill.compress.gate import choose, reason_of
from fedistill.compress.settings import Bounds
from tests.compress.stages import STAGE

FLOAT = replace(STAGE, latency_ms_batch_1=1.0, latency_ms_batch_256=9.0)
FAST = replace(FLOAT, stage="pruned", bytes=500, latency_ms_batch_1=0.2, agreement=0.995)
SMALL = replace(FLOAT, stage="quantized", bytes=300, latency_ms_batch_1=2.0, agreement=0.999)
WRONG = replace(FLOAT, stage="pruned+quantized", bytes=100, latency_ms_batch_1=0.1, agreement=0.5)
STAGES = [FLOAT, FAST, SMALL, WRONG]
MISSES = [(), (), (), ("agreement 0.5000 is below 0.99",)]


@pytest.mark.parametrize(
    ("bounds", "shipped", "met"),
    [
        (Bounds(), "quantized", True),
        (Bounds(max_bytes=400), "quantized", True),
        (Bounds(max_bytes=900), "quantized", True),
        (Bounds(max_bytes=600, max_latency_ms=1.0), "pruned", True),
        (Bounds(max_latency_ms=0.5), "pruned", True),
        (Bounds(max_latency_ms=0.5, max_bytes=500), "pruned", True),
        # Nothing is both: twice too slow, or twice too large, and no file that answers otherwise.
        (Bounds(max_latency_ms=0.15, max_bytes=290), "pruned", False),
        (Bounds(max_bytes=200), "quantized", False),
    ],
)
def test_the_most_faithful_that_meets_the_bounds_ships_or_the_nearest(bounds, shipped, met) -> None:
    index, meets = choose(STAGES, MISSES, bounds)
    assert (STAGES[index].stage, meets) == (shipped, met)


def test_the_float_file_ships_where_it_alone_meets_the_bounds() -> None:
    slow = replace(SMALL, latency_ms_batch_1=5.0)
    assert choose([FLOAT, slow], [(), ()], Bounds(max_latency_ms=1.5)) == (0, True)


def test_bounds_that_leave_room_ship_what_agrees_more_and_none_what_is_smaller() -> None:
    smaller = replace(FAST, bytes=200)
    assert choose([FLOAT, smaller, SMALL], [(), (), ()], Bounds()) == (1, True)
    assert choose([FLOAT, smaller, SMALL], [(), (), ()], Bounds(max_bytes=999)) == (2, True)


def test_of_files_of_one_size_the_one_that_travels_smallest_ships() -> None:
    sparse = replace(SMALL, stage="sparse+quantized", bytes=302, bytes_deflated=120)
    assert choose([FLOAT, SMALL, sparse], [(), (), ()], Bounds()) == (2, True)


def test_the_reason_names_the_bounds_that_were_met() -> None:
    bounds = Bounds(max_latency_ms=0.5, max_bytes=600)
    words = reason_of(STAGES, 1, MISSES, bounds, met=True)
    assert (
        "the most faithful that passes the gate and meets max-latency-ms=0.5 and max-bytes=600"
        in (words)
    )


def test_the_reason_says_that_a_bound_cannot_be_met_and_what_comes_nearest() -> None:
    words = reason_of(STAGES, 2, MISSES, Bounds(max_bytes=200), met=False)
    assert words.startswith(
        "No file that passes the gate meets max-bytes=200: shipped the quantized file, which comes "
        "nearest (300 bytes, 2 ms for one row, agreement 0.9990); the pruned+quantized file was "
        "rejected"
    )


def test_many_rejected_files_are_counted_and_left_to_the_search_s_file() -> None:
    many = [FLOAT, FAST, *([WRONG] * 6)]
    words = reason_of(many, 1, [(), (), *([MISSES[3]] * 6)], Bounds(), met=True)
    assert words.endswith("; 6 files were rejected, and pareto.json says why.")
