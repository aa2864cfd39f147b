"""The law of the noise: the right one is accepted, wrong ones are rejected.

Each test that accepts raises a false alarm with probability 1e-6.
"""

import itertools
import multiprocessing
import threading
import time

import numpy as np
import pytest
from scipy import stats

from fedistill.privacy import discrete_gaussian
from fedistill.privacy.discrete_gaussian import add_noise
from tests.statistical.noise_law import FALSE_ALARM, fits, follows, spread_fits

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


PIECES = 4


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> int:
    """As many cores as pieces, whatever the machine has."""
    monkeypatch.setattr(discrete_gaussian, "_num_cores", lambda: PIECES)
    return PIECES


def pieces_are_unlike(samples: np.ndarray) -> bool:
    """Whether no piece repeats another one, or leans on it.

    At scale 1e10 two entries agree with a chance of 2.8e-11: one pair of the 30,000 with 8.5e-7.
    """
    pieces = samples.reshape(PIECES, -1)
    pairs = list(itertools.combinations(range(PIECES), 2))
    repeated = any((pieces[i] == pieces[j]).any() for i, j in pairs)
    bound = stats.norm.isf(FALSE_ALARM / len(pairs) / 2) / np.sqrt(pieces.shape[1])
    return not repeated and max(abs(np.corrcoef(pieces)[i, j]) for i, j in pairs) < bound


def test_a_long_vector_is_noised_by_one_thread_a_core(cores: int, monkeypatch) -> None:
    seen: list[tuple[int, int]] = []
    exact = discrete_gaussian._measurement
    together = threading.Barrier(cores, timeout=30)

    def spy(scale: float):
        def noise(values: list[int]) -> list[int]:
            together.wait()  # nobody passes before all pieces are at work
            seen.append((threading.get_ident(), len(values)))
            return exact(scale)(values)

        return noise

    monkeypatch.setattr(discrete_gaussian, "_measurement", spy)
    before = threading.active_count()
    noise(20_001, 3.3)
    assert len({thread for thread, _ in seen}) == cores
    assert threading.get_ident() not in {thread for thread, _ in seen}
    assert sorted(size for _, size in seen) == [4_998, 5_001, 5_001, 5_001]
    assert threading.active_count() == before


def test_a_short_vector_is_noised_by_no_other_thread(cores: int, monkeypatch) -> None:
    monkeypatch.setattr(discrete_gaussian, "ThreadPoolExecutor", None)
    assert noise(1_999, 3.3).shape == (1_999,)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("scale", [1.0, 3.3, 20.0, 1e10])
def test_noise_of_several_threads_has_the_law(scale: float) -> None:
    assert follows(noise(20_000, scale), scale)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("scale", [1.0, 3.3, 20.0, 1e10])
def test_a_scale_ten_percent_smaller_is_rejected_in_several_threads_too(scale: float) -> None:
    assert not follows(noise(20_000, 0.9 * scale), scale)


@pytest.mark.usefixtures("cores")
def test_noise_of_several_threads_is_independent() -> None:
    samples = noise(20_000, 1e10)
    assert pieces_are_unlike(samples)
    assert not (noise(20_000, 1e10) == samples).any()


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_threads_that_share_a_stream_are_caught(monkeypatch, share: float) -> None:
    """A duplicated stream in all of the noise, and in a fifth of its variance."""

    def measurement(scale: float):
        def noise(values: list[int]) -> list[int]:
            same = np.random.default_rng(0).normal(0, scale * np.sqrt(share), len(values))
            own = np.random.default_rng().normal(0, scale * np.sqrt(1 - share), len(values))
            return np.rint(np.array(values) + same + own).astype(np.int64).tolist()

        return noise

    monkeypatch.setattr(discrete_gaussian, "_measurement", measurement)
    samples = noise(20_000, 1e10)
    assert not pieces_are_unlike(samples)


@pytest.mark.usefixtures("cores")
def test_every_sum_gets_its_own_noise_whichever_thread_adds_it() -> None:
    sums = (np.arange(20_010) * 1_000 - 10_000_000).reshape(-1, 3)
    noised = add_noise(sums, 3.3)
    assert noised.shape == sums.shape
    assert noised.dtype == np.int64
    np.testing.assert_array_equal(np.rint(noised / 1_000) * 1_000, sums)
    assert fits((noised - sums).ravel(), 3.3)


@pytest.mark.usefixtures("cores")
def test_a_seed_of_numpy_does_not_reach_the_noise_of_several_threads() -> None:
    """PRIVACY rule 14."""
    np.random.seed(0)
    first = noise(20_000, 1e10)
    np.random.seed(0)
    assert not (first == noise(20_000, 1e10)).any()


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
