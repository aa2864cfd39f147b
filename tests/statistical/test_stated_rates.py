"""The page of rates states those that the tests use."""

import re
from pathlib import Path

import pytest

from fedistill.mechanisms.mechanism import OURS
from tests.statistical import (
    noise_law,
    test_evaluation_noise,
    test_mechanism_noise,
    test_neighbours,
    test_sampled_steps,
)
from tests.statistical.distinguishing import mu_of_event
from tests.statistical.worst_cases import WORST_CASES

PAGE = (Path(__file__).parents[2] / "docs" / "statistical-tests.md").read_text()


@pytest.mark.parametrize(
    "module", [noise_law, test_mechanism_noise, test_neighbours, test_sampled_steps]
)
def test_the_false_alarm_rate_is_the_one_on_the_page(module) -> None:
    assert set(re.findall(r"\b1e-6\b", PAGE)) == {f"{module.FALSE_ALARM:.0e}".replace("-0", "-")}


def test_numbers_of_releases_and_powers_are_those_on_the_page() -> None:
    for text in (
        f"over {test_mechanism_noise.RELEASES} releases",
        f"over {test_mechanism_noise.FEW_RELEASES} releases",
        f"over {test_mechanism_noise.MANY_RELEASES:,} releases",
        f"over {test_evaluation_noise.RELEASES} releases, for two and three classes",
        f"at epsilon {test_evaluation_noise.EPSILON:g}, {test_evaluation_noise.RUNS} a side, stays",
        f"over {test_sampled_steps.RELEASES} releases of {test_sampled_steps.STEPS} steps",
        f"at epsilon {test_neighbours.EPSILON:g}, {test_neighbours.RUNS} a side",
        f"the same, {test_neighbours.MANY_RUNS} a side",
        f"{test_neighbours.AUDIT_RUNS:,} releases a side",
        f"from {test_neighbours.TRAINING} further releases a side",
        f"in the slow test from {test_neighbours.MUCH_TRAINING}",
        f"if they show {test_neighbours.LEAST_OF_NUMBERS:.0%} of mu",
    ):
        assert text in PAGE
    assert {test_mechanism_noise.POWER, test_neighbours.POWER, test_sampled_steps.POWER} == {
        0.99999
    }


def test_every_mechanism_of_ours_is_attacked() -> None:
    assert {case.mechanism for case in WORST_CASES} == set(OURS)


SHARES = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}


@pytest.mark.parametrize("runs", [test_neighbours.RUNS, test_neighbours.MANY_RUNS])
def test_the_twins_that_what_leaves_gives_away_are_those_on_the_page(runs: int) -> None:
    twins, kept = {}, {}
    for case in WORST_CASES:
        claim = mu_of_event(case.plan(test_neighbours.EPSILON).event)
        share = SHARES[test_neighbours.weakest_twin(case, claim, runs)]
        twins.setdefault(share, set()).add(case.mechanism)
        kept.setdefault(f"{case.codes_keep:.0%}", set()).add(case.mechanism)
    (usual, _), (of_dp_ebm, alone) = twins.items()
    assert alone == {"dp-ebm"}
    usual = "half the noise" if usual == "half" else f"{usual} of the noise"
    assert f"{usual} (`dp-ebm`: {of_dp_ebm})" in PAGE
    assert list(kept) == ["75%", "55%"]
    assert "if it shows 75% of mu (`dp-ebm`: 55%)" in PAGE


def test_the_limits_of_dp_ebm_and_dp_sgd_are_those_on_the_page() -> None:
    found = {case.mechanism: case for case in WORST_CASES}
    assert f"at epsilon {found['dp-ebm'].epsilon:g} only" in PAGE
    assert "1e-5 of rho" in PAGE
    assert found["dp-sgd"].rounding == 1e-5
    assert [case.mechanism for case in WORST_CASES if case.epsilon != 1] == ["dp-ebm"]
