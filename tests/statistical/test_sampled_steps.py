"""How often `dp-sgd` lets a record take part in a step, seen in releases; wrong twins are caught.

A site of one record: a step's exact sum is zero unless that record was sampled.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from fedistill.mechanisms import dp_sgd, noisy_descent
from tests.mechanisms.toy import make_rows
from tests.statistical.sampler import draws_of, seed_everything
from tests.statistical.worst_cases import WORST_CASES

pytestmark = pytest.mark.statistical

FALSE_ALARM = 1e-6
POWER = 0.99999
RATE = 0.3
RELEASES = 25
STEPS = 40
TWINS = {
    "all": lambda num_rows, rate: np.arange(num_rows),
    "too many": lambda num_rows, rate: noisy_descent.poisson_sample(num_rows, 1.5 * rate),
}
(CASE,) = (case for case in WORST_CASES if case.mechanism == "dp-sgd")


def steps_of_a_record(releases: int = RELEASES) -> np.ndarray:
    """(num_releases, STEPS) bool: whether the record took part in a step."""
    rows = make_rows(1, num_classes=5)
    plan = CASE.plan(1.0, sgd_sampling_rate=RATE, sgd_steps=STEPS)
    drawn = draws_of(lambda: CASE.release(rows, plan), times=releases)
    return np.array([[draw.exact.any() for draw in draws[1:]] for draws in drawn])


def fits(took_part: np.ndarray) -> bool:
    """Two-sided binomial test of the rate that the event states."""
    return bool(stats.binomtest(int(took_part.sum()), took_part.size, RATE).pvalue > FALSE_ALARM)


def use(patch: pytest.MonkeyPatch, sample: noisy_descent.Sampler) -> None:
    """Another sampler of records than the one that ships."""
    patch.setitem(noisy_descent.train.__kwdefaults__, "sample", sample)


def test_a_record_takes_part_as_often_as_was_charged() -> None:
    """False alarm 1e-6."""
    took_part = steps_of_a_record()
    assert took_part.shape == (RELEASES, STEPS)
    assert fits(took_part)


@pytest.mark.parametrize("name", TWINS)
def test_a_higher_rate_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power above 99.999% for half as much again: the exact binomial law of the count."""
    counts = np.arange(RELEASES * STEPS + 1)
    caught = [stats.binomtest(int(k), counts[-1], RATE).pvalue <= FALSE_ALARM for k in counts]
    assert stats.binom.pmf(counts, counts[-1], 1.5 * RATE)[caught].sum() > POWER
    use(monkeypatch, TWINS[name])
    assert not fits(steps_of_a_record())


def sampled_after_a_seed() -> np.ndarray:
    seed_everything()
    return steps_of_a_record(releases=4)


def test_no_seed_reaches_the_sampling_of_records() -> None:
    """PRIVACY rule 14. Two sets of 160 coins of chance 0.3 agree with probability below 1e-37."""
    assert not np.array_equal(sampled_after_a_seed(), sampled_after_a_seed())


def test_a_seeded_sampler_of_records_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power 1: it repeats itself."""
    use(monkeypatch, lambda num_rows, rate: np.flatnonzero(np.random.random(num_rows) < rate))
    np.testing.assert_array_equal(sampled_after_a_seed(), sampled_after_a_seed())


def noise_of_a_release() -> np.ndarray:
    plan = CASE.plan(1.0)
    (draws,) = draws_of(lambda: CASE.release(CASE.present, plan))
    return np.concatenate([draw.noise for draw in draws[1:]])


def test_a_generator_that_was_seeded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power 1; the one that ships never gives the same noise twice."""
    assert not np.allclose(noise_of_a_release(), noise_of_a_release())
    monkeypatch.setattr(dp_sgd, "secret_generator", lambda: torch.Generator().manual_seed(0))
    np.testing.assert_allclose(noise_of_a_release(), noise_of_a_release(), rtol=1e-4)
