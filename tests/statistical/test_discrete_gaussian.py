"""The law of the noise: the right one is accepted, wrong ones are rejected.

Each test that accepts raises a false alarm with probability 1e-6.
"""

import multiprocessing
import time

import numpy as np
import pytest
from scipy import stats

from fedistill.privacy.discrete_gaussian import add_noise
from tests.statistical.noise_law import FALSE_ALARM, fits, spread_fits

pytestmark = pytest.mark.statistical


def noise(count: int, scale: float) -> np.ndarray:
    return add_noise(np.zeros(count, dtype=np.int64), scale)


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 3.3, 20.0])
def test_small_scales_follow_the_discrete_gaussian(scale: float) -> None:
    assert fits(noise(20_000, scale), scale)


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 3.3, 20.0])
def test_a_scale_ten_percent_smaller_is_rejected(scale: float) -> None:
    assert not fits(noise(20_000, 0.9 * scale), scale)


def test_a_rounded_continuous_gaussian_is_rejected() -> None:
    rounded = np.rint(np.random.default_rng(0).normal(0, 0.5, 20_000)).astype(np.int64)
    assert not fits(rounded, 0.5)


def test_a_discrete_laplace_of_the_same_variance_is_rejected() -> None:
    rng = np.random.default_rng(0)
    laplace = rng.geometric(0.35, 20_000) - rng.geometric(0.35, 20_000)
    assert not fits(laplace, float(laplace.std()))


@pytest.mark.parametrize("scale", [1e4, 1e10, 1e12])
def test_large_scales_follow_the_gaussian(scale: float) -> None:
    samples = noise(20_000, scale)
    assert stats.kstest(samples / scale, "norm").pvalue > FALSE_ALARM
    assert spread_fits(samples, scale)


@pytest.mark.parametrize("scale", [1e4, 1e10, 1e12])
def test_a_large_scale_ten_percent_smaller_is_rejected(scale: float) -> None:
    assert not spread_fits(noise(20_000, 0.9 * scale), scale)


@pytest.mark.parametrize("scale", [1e10, 1e12])
def test_the_lowest_bits_are_as_random_as_the_others(scale: float) -> None:
    # Noise that was a float on its way would leave its granularity here.
    counts = np.bincount(noise(20_000, scale) % 64, minlength=64)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_entries_of_one_call_are_independent() -> None:
    samples = noise(20_000, 100.0)
    correlation = np.corrcoef(samples[:-1], samples[1:])[0, 1]
    assert abs(correlation) < stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(len(samples))


def test_noise_is_added_to_the_sums() -> None:
    sums = np.repeat([1000, -1000], 10_000)
    assert fits(add_noise(sums, 3.3) - sums, 3.3)


def test_a_seed_of_numpy_does_not_reach_the_noise() -> None:
    """PRIVACY rule 14: two draws agree with probability below 1e-300."""
    np.random.seed(0)
    first = noise(50, 1e10)
    np.random.seed(0)
    assert not np.array_equal(first, noise(50, 1e10))


def _draw(results: "multiprocessing.SimpleQueue[list[int]]") -> None:
    results.put(noise(50, 1e10).tolist())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_processes_draw_different_noise() -> None:
    """PRIVACY rule 14: a sampler whose state was copied by a fork would repeat itself."""
    noise(1, 1e10)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_draw, args=(results,)) for _ in range(3)]
    for child in children:
        child.start()
    drawn = [tuple(results.get()) for _ in children]
    for child in children:
        child.join()
    assert len({*drawn, tuple(noise(50, 1e10).tolist())}) == 4


def test_eight_releases_of_300_sums_take_less_than_a_second() -> None:
    noise(1, 1e10)
    start = time.perf_counter()
    for _ in range(8):
        noise(300, 1e10)
    assert time.perf_counter() - start < 1
