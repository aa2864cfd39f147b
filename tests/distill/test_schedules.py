import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.distill.schedules import (
    Constant,
    Rising,
    Steps,
    alpha_ramp,
    cosine_with_warm_up,
    falling_by_stage,
    search_temperature,
)
from fedistill.errors import ConfigError


def test_the_falling_temperature_loses_one_a_stage_from_four():
    schedule = falling_by_stage(stages=4, length=10)
    assert [schedule.at(step) for step in (0, 9, 10, 19, 20, 30, 500)] == [4, 4, 3, 3, 2, 1, 1]


@settings(deadline=None)
@given(
    stages=st.integers(1, 12),
    length=st.integers(1, 50),
    first=st.floats(1, 20),
    by=st.floats(0, 5),
    step=st.integers(0, 1000),
)
def test_a_falling_temperature_never_rises_and_keeps_above_the_least(
    stages, length, first, by, step
):
    schedule = falling_by_stage(stages=stages, length=length, first=first, by=by)
    assert schedule.at(0) == first
    assert 1 <= schedule.at(step + 1) <= schedule.at(step) <= first


def test_the_rising_temperature_waits_and_then_gains_a_tenth_a_step_up_to_eight():
    schedule = Rising(warm_up=20)
    assert [schedule.at(step) for step in (0, 20)] == [5, 5]
    assert schedule.at(21) == pytest.approx(5.1)
    assert schedule.at(49) == pytest.approx(7.9)
    assert schedule.at(51) == schedule.at(10_000) == 8


@settings(deadline=None)
@given(warm_up=st.integers(0, 50), step=st.integers(0, 200), by=st.floats(0.01, 3))
def test_a_rising_temperature_never_falls_and_stays_within_its_ends(warm_up, step, by):
    schedule = Rising(warm_up=warm_up, by=by)
    gain = schedule.at(step + 1) - schedule.at(step)
    assert 0 <= gain <= by + 1e-9
    assert 5 <= schedule.at(step) <= 8


def test_alpha_is_hard_first_where_labels_exist_and_soft_throughout_where_none_do():
    ramp = alpha_ramp(hard_until=5, mixed_until=12)
    assert [ramp.at(step) for step in (0, 4, 5, 11, 12, 99)] == [0, 0, 0.3, 0.3, 0.7, 0.7]
    unlabelled = alpha_ramp(hard_until=5, mixed_until=12, labelled=False)
    assert {unlabelled.at(step) for step in range(30)} == {1.0}


@pytest.mark.parametrize(("warm_up", "total"), [(0, 7), (1, 2), (4, 20)])
def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine_to_zero(warm_up, total):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    schedule = cosine_with_warm_up(optimizer, warm_up=warm_up, total=total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rises = [0.3 * (step + 1) / (warm_up + 1) for step in range(warm_up)]
    falls = [
        0.15 * (1 + math.cos(math.pi * step / (total - warm_up))) for step in range(total - warm_up)
    ]
    assert rates == pytest.approx(rises + falls)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_search_scores_each_candidate_once_and_takes_the_best():
    asked = []

    def score(temperature: float) -> float:
        asked.append(temperature)
        return -((temperature - 3.2) ** 2)

    found = search_temperature((1.0, 2.0, 3.0, 4.0, 8.0), score)
    assert (found.best, asked) == (3.0, [1.0, 2.0, 3.0, 4.0, 8.0])
    assert found.scores[4.0] == pytest.approx(-0.64)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=1, unique=True))
def test_of_equal_scores_the_lowest_temperature_wins_whatever_the_order(candidates):
    assert search_temperature(candidates, lambda _: 0.7).best == min(candidates)


def test_a_score_that_is_no_number_loses_and_all_such_are_refused():
    scores = {1.0: math.nan, 2.0: 0.1, 3.0: -math.inf}
    assert search_temperature(tuple(scores), scores.__getitem__).best == 2.0
    with pytest.raises(ConfigError, match=r"no score of candidates=\(1.0,\) is a number"):
        search_temperature((1.0,), lambda _: math.nan)


@pytest.mark.parametrize("candidates", [(), (2.0, 0.0), (-1.0,), (math.inf,), (math.nan,)])
def test_candidates_out_of_bounds_are_refused_before_any_is_scored(candidates):
    with pytest.raises(ConfigError, match=r"candidates=.* must be above 0"):
        search_temperature(candidates, lambda _: pytest.fail("scored"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Steps(values=(), starts=()), "starts="),
        (lambda: Steps(values=(1.0,), starts=(1,)), "must ascend from 0"),
        (lambda: Steps(values=(1.0, 2.0), starts=(0, 0)), "must ascend from 0"),
        (lambda: Steps(values=(1.0,), starts=(0, 3)), "must be as many as"),
        (lambda: Rising(first=9.0), "first=9.0 must be above 0 and at most last=8.0"),
        (lambda: Rising(by=0.0), "by=0.0 must be above 0"),
        (lambda: Rising(warm_up=-1), "warm_up=-1 must be at least 0"),
        (lambda: falling_by_stage(stages=0, length=1), "stages=0 must be at least 1"),
        (lambda: falling_by_stage(stages=1, length=0), "length=0 must be at least 1"),
        (lambda: falling_by_stage(stages=1, length=1, by=-1.0), "by=-1.0 must be at least 0"),
        (lambda: falling_by_stage(stages=1, length=1, first=0.5), "at most first=0.5"),
        (lambda: alpha_ramp(hard_until=0, mixed_until=3), "hard_until=0 must be at least 1"),
        (lambda: alpha_ramp(hard_until=3, mixed_until=3), "below mixed_until=3"),
    ],
)
def test_bad_settings_are_refused_by_name_value_and_bound(make, text):
    with pytest.raises(ConfigError, match=text.replace("(", r"\(")):
        make()


@pytest.mark.parametrize(("warm_up", "total"), [(-1, 5), (5, 5)])
def test_a_warm_up_as_long_as_the_training_is_refused(warm_up, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    with pytest.raises(ConfigError, match=f"warm_up={warm_up} .* below total=5"):
        cosine_with_warm_up(optimizer, warm_up=warm_up, total=total)


def test_a_constant_is_the_same_at_every_step():
    assert {Constant(2.5).at(step) for step in range(100)} == {2.5}
