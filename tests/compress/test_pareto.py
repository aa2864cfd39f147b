import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fedistill.compress.gate import Verdict
from fedistill.compress.pareto import on_front, write_pareto
from fedistill.compress.settings import Bounds, Settings
from tests.compress.test_bounds import FLOAT

few = st.integers(1, 4)


def beats(one, other) -> bool:
    mine, its = ((each.bytes, each.latency_ms_batch_1, -each.agreement) for each in (one, other))
    return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


@given(st.lists(st.tuples(few, few, few), min_size=1, max_size=8))
def test_the_front_holds_what_nothing_beats_and_beats_all_else(costs) -> None:
    stages = [
        replace(FLOAT, bytes=size, latency_ms_batch_1=float(ms), agreement=share / 4)
        for size, ms, share in costs
    ]
    front = [stage for stage, kept in zip(stages, on_front(stages), strict=True) if kept]
    assert front
    assert not any(beats(one, other) for one in stages for other in front)
    for stage in stages:
        assert stage in front or any(beats(other, stage) for other in front)


def test_the_file_says_what_was_measured_and_what_each_missed(tmp_path) -> None:
    small = replace(FLOAT, stage="pruned 80%", bytes=10, agreement=0.4)
    verdict = Verdict(
        stages=(replace(FLOAT, shipped=True), small),
        misses=((), ("agreement 0.4000 is below 0.99",)),
        shipped=0,
        met=False,
        reason="",
    )
    write_pareto(tmp_path / "pareto.json", verdict, Settings(bounds=Bounds(max_bytes=20)))
    written = json.loads((tmp_path / "pareto.json").read_text())
    assert written["bounds"] == {"max_latency_ms": 0.0, "max_bytes": 20}
    assert written["met"] is False
    assert [point["shipped"] for point in written["points"]] == [True, False]
    assert [point["on_front"] for point in written["points"]] == [True, True]
    assert written["points"][1]["misses"] == ["agreement 0.4000 is below 0.99"]
