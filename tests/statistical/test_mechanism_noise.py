"""Every noise path of every mechanism: law, scale, randomness and clip; wrong twins are caught."""

import numpy as np
import pytest

from fedistill.mechanisms import Plan
from tests.statistical.distinguishing import mu_of_event
from tests.statistical.noise_law import follows, power
from tests.statistical.sampler import (
    SEEDED,
    Draw,
    Sampler,
    as_shipped,
    draws_of,
    seed_everything,
    seeded,
    shrunk,
    told,
)
from tests.statistical.worst_cases import WORST_CASES, WorstCase, every_clip, every_mechanism

pytestmark = pytest.mark.statistical

FALSE_ALARM = 1e-6
"""Of each test, for all mechanisms and noise paths together."""

POWER = 0.99999
RELEASES = 200
FEW_RELEASES = 150
MANY_RELEASES = 5_000
MOST_PATHS = 12
PER_PATH = FALSE_ALARM / len(WORST_CASES) / MOST_PATHS


def noise_paths(case: WorstCase, sampler: Sampler, releases: int) -> list[tuple[np.ndarray, float]]:
    """For each vector that a release noises: its noise over many releases, and the scale."""
    plan = case.plan(case.epsilon)
    drawn = draws_of(lambda: case.release(case.present, plan), sampler, times=releases)
    paths = list(zip(*drawn, strict=True))
    assert 1 <= len(paths) <= MOST_PATHS
    assert all(len({draw.scale for draw in path}) == 1 for path in paths)
    return [(np.concatenate([draw.noise for draw in path]), path[0].scale) for path in paths]


@every_mechanism
def test_every_noise_path_has_its_law(case: WorstCase) -> None:
    """False alarm 1e-6 over all mechanisms and paths."""
    for noise, scale in noise_paths(case, as_shipped, RELEASES):
        assert follows(noise, scale, PER_PATH)


@every_mechanism
def test_half_the_scale_is_rejected_on_every_path(case: WorstCase) -> None:
    """Power at least 99.999%."""
    for noise, scale in noise_paths(case, shrunk(0.5), FEW_RELEASES):
        assert power(len(noise), 0.5, PER_PATH) > POWER
        assert not follows(noise, scale, PER_PATH)


@pytest.mark.slow
@every_mechanism
def test_ten_percent_less_is_rejected_on_every_path(case: WorstCase) -> None:
    """Power at least 99.999%."""
    for noise, scale in noise_paths(case, shrunk(0.9), MANY_RELEASES):
        assert power(len(noise), 0.9, PER_PATH) > POWER
        assert not follows(noise, scale, PER_PATH)


def noise_after_a_seed(case: WorstCase, sampler: Sampler) -> np.ndarray:
    """All noise of one release, every global generator having been seeded before."""
    plan = case.plan(case.epsilon)
    seed_everything()
    (draws,) = draws_of(lambda: case.release(case.present, plan), sampler)
    return np.concatenate([draw.noise for draw in draws])


@every_mechanism
def test_no_seed_reaches_the_noise(case: WorstCase) -> None:
    """PRIVACY rule 14. 20 integers of scale 1 or more agree with probability below 1e-10 (two of
    them with 1 / (2 sqrt(pi)) at most), and all releases here have more.
    """
    first, second = (noise_after_a_seed(case, as_shipped) for _ in range(2))
    assert len(first) >= 20
    assert not np.array_equal(first, second)


@every_mechanism
@pytest.mark.parametrize("library", SEEDED)
def test_a_seeded_sampler_is_noticed(case: WorstCase, library: str) -> None:
    """Power 1: it repeats itself."""
    first, second = (noise_after_a_seed(case, seeded(library)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@every_mechanism
def test_no_noise_is_used_twice_in_a_release(case: WorstCase) -> None:
    """Vectors of 10 entries and more; equal by chance with probability below 1e-5 at scale 1, and
    1e-11 at the scales here, of 4 and more.
    """
    plan = case.plan(case.epsilon)
    (draws,) = draws_of(lambda: case.release(case.present, plan))
    long = [tuple(draw.noise) for draw in draws if len(draw.noise) >= 10]
    assert all(draw.scale > 4 for draw in draws if np.issubdtype(draw.noise.dtype, np.integer))
    assert len(set(long)) == len(long) >= 1


def rho_between(case: WorstCase, plan: Plan) -> float:
    """zCDP rho that tells the two data sets apart, given what a release with the record gave.

    The release without it is told the same earlier answers, so this is exact for any number of
    rounds: the sum over all vectors of |what moved|**2 / (2 scale**2).
    """
    (draws,) = draws_of(lambda: case.release(case.present, plan))
    others = told(lambda: case.release(case.absent, plan), draws)
    assert [draw.scale for draw in draws] == [other.scale for other in others]
    return sum(_rho(draw, other) for draw, other in zip(draws, others, strict=True))


def _rho(draw: Draw, other: Draw) -> float:
    moved = (draw.exact - other.exact).astype(object)
    return float((moved**2).sum() / (2 * draw.scale**2))


@every_mechanism
def test_a_record_costs_what_the_event_says_and_no_more(case: WorstCase) -> None:
    """Exact, so without a false alarm; and sharp, or the tests of this folder would prove little.

    The scales are those that reach the sampler, so a plan that asks for less noise than its event
    says is caught here, and one by a part in 1,000 already.
    """
    plan = case.plan(case.epsilon)
    claimed = mu_of_event(plan.event) ** 2 / 2
    found = [rho_between(case, plan) for _ in range(5)]
    assert max(found) <= claimed * (1 + case.rounding)
    assert np.mean(found) >= claimed * case.sharpness


@every_clip
def test_a_forgotten_clip_is_noticed(case: WorstCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin's noise is as it should be; only what one record adds is not bounded."""
    plan = case.plan(case.epsilon, **case.provoked)
    claimed = mu_of_event(plan.event) ** 2 / 2
    assert rho_between(case, plan) <= claimed * (1 + case.rounding)
    case.forget_clip(monkeypatch)
    assert rho_between(case, plan) > 1.1 * claimed
