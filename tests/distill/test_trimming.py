"""Trimmed means and medians: what one liar can move, and the law of what comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedistill.distill.trimming import largest_trim, normal_factor, trimmed_mean
from fedistill.distill.weighting import Answers

SHAPE = (6, 3)
values = st.floats(-1e6, 1e6, allow_nan=False)
variances = st.floats(0, 1e6, allow_nan=False)


def answers_of(
    log_odds: np.ndarray,
    *,
    gain: np.ndarray | float = 0.8,
    noise: np.ndarray | float = 1.0,
    sampling: np.ndarray | float = 0.5,
) -> Answers:
    """Answers (num_sites, num_features, num_classes) whose classes are made to sum to zero."""
    num_sites, num_features, _ = log_odds.shape

    def spread(value):
        return np.broadcast_to(np.asarray(value, np.float64), (num_sites, num_features)).copy()

    return Answers(
        values=log_odds - log_odds.mean(axis=2, keepdims=True),
        gain=spread(gain),
        noise=spread(noise),
        sampling=spread(sampling),
        common=np.zeros(num_features),
    )


@pytest.mark.parametrize("num_sites", [3, 4, 7])
def test_equal_answers_give_that_answer(num_sites: int) -> None:
    one = np.random.default_rng(0).normal(size=SHAPE)
    answers = answers_of(np.repeat(one[None], num_sites, axis=0))
    for trim in range(largest_trim(num_sites) + 1):
        combined = trimmed_mean(answers, trim)
        np.testing.assert_allclose(combined.values, answers.values[0], atol=1e-12)
        np.testing.assert_allclose(combined.gain, 0.8)


def test_the_median_is_numpys() -> None:
    log_odds = np.random.default_rng(1).normal(size=(5, 8, 2))
    answers = answers_of(log_odds)
    combined = trimmed_mean(answers, largest_trim(5))
    np.testing.assert_allclose(combined.values, np.median(answers.values, axis=0))


def test_of_an_even_number_the_median_is_the_mean_of_the_middle_two() -> None:
    answers = answers_of(np.random.default_rng(2).normal(size=(6, 8, 2)))
    combined = trimmed_mean(answers, largest_trim(6))
    np.testing.assert_allclose(combined.values, np.median(answers.values, axis=0))


def test_without_trimming_it_is_the_mean_with_its_law() -> None:
    answers = answers_of(np.random.default_rng(3).normal(size=(4, *SHAPE)), noise=2.0, sampling=1.0)
    combined = trimmed_mean(answers, 0)
    np.testing.assert_allclose(combined.values, answers.values.mean(axis=0))
    np.testing.assert_allclose(combined.noise, 2.0 / 4)
    np.testing.assert_allclose(combined.sampling, 1.0 / 4)
    np.testing.assert_allclose(combined.weights, 1 / 4)


@given(arrays(np.float64, (5, 4, 2), elements=values), st.permutations(range(5)), st.integers(1, 2))
def test_the_order_of_the_sites_does_not_matter(log_odds, order, trim) -> None:
    before = trimmed_mean(answers_of(log_odds), trim)
    after = trimmed_mean(answers_of(log_odds[list(order)]), trim)
    np.testing.assert_allclose(before.values, after.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(before.weights.sum(axis=0), 1.0)


@given(
    honest=arrays(np.float64, (4, 3, 2), elements=values),
    lie=arrays(np.float64, (3, 2), elements=st.floats(-1e12, 1e12, allow_nan=False)),
    claims=st.tuples(st.floats(0, 1), variances, variances),
    place=st.integers(0, 4),
    trim=st.integers(1, 2),
)
def test_one_site_moves_the_answer_no_further_than_the_honest_range(
    honest, lie, claims, place, trim
) -> None:
    """Whatever it answers, and whatever it claims of its own gain and noise."""
    honest = answers_of(honest)
    gain, noise, sampling = (
        np.insert(kept, place, claim, axis=0)
        for kept, claim in zip((honest.gain, honest.noise, honest.sampling), claims, strict=True)
    )
    everyone = answers_of(
        np.insert(honest.values, place, lie - lie.mean(axis=1, keepdims=True), axis=0),
        gain=gain,
        noise=noise,
        sampling=sampling,
    )
    combined = trimmed_mean(everyone, trim)
    slack = 1e-9 * (1 + np.abs(honest.values).max())
    assert (combined.values <= honest.values.max(axis=0) + slack).all()
    assert (combined.values >= honest.values.min(axis=0) - slack).all()
    np.testing.assert_allclose(combined.gain, 0.8)
    largest = normal_factor(5, trim) / 5
    np.testing.assert_allclose(combined.noise, largest * 1.0)
    np.testing.assert_allclose(combined.sampling, largest * 0.5)


@pytest.mark.parametrize(
    ("num_sites", "expected"),
    # n times the variance of the median of n standard normals (Hojo 1931; David and Nagaraja 2003).
    [(1, 1.0), (3, 1.3460), (4, 1.1921), (5, 1.4341), (7, 1.4725), (9, 1.4937)],
)
def test_the_variance_of_a_median_is_the_tabulated_one(num_sites: int, expected: float) -> None:
    found = normal_factor(num_sites, largest_trim(num_sites))
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_median_of_many_tends_to_pi_half() -> None:
    assert normal_factor(999, largest_trim(999)) == pytest.approx(np.pi / 2, rel=0.01)
    assert normal_factor(999, 0) == 1.0


@pytest.mark.parametrize("trim", [1, 3])
def test_the_limit_law_joins_the_integrals(trim: int) -> None:
    """Just below and just above the number of kept order statistics that are integrated."""
    below, above = normal_factor(20 + 2 * trim, trim), normal_factor(21 + 2 * trim, trim)
    assert above == pytest.approx(below, rel=0.008)


@pytest.mark.statistical
@pytest.mark.parametrize(("num_sites", "trim"), [(3, 1), (5, 1), (5, 2), (6, 2), (25, 4), (31, 2)])
def test_the_stated_law_is_that_of_trimmed_normals(num_sites: int, trim: int) -> None:
    """40,000 directions: the variance has a relative standard error of 0.7%; 4% is above 5 of them.

    The factor of an untrimmed mean would fail wherever trimming costs more than that.
    """
    random = np.random.default_rng(num_sites * 100 + trim)
    one = random.normal(size=(num_sites, 40_000, 1))
    answers = answers_of(np.concatenate([-one, one], axis=2), noise=0.75, sampling=0.25)
    combined = trimmed_mean(answers, trim)
    stated = combined.noise[0] + combined.sampling[0]
    assert combined.values[:, 1].var() == pytest.approx(stated, rel=0.04)


@pytest.mark.parametrize(("num_sites", "trim"), [(1, 1), (2, 1), (4, 2), (5, -1)])
def test_too_few_sites_are_named(num_sites: int, trim: int) -> None:
    answers = answers_of(np.zeros((num_sites, *SHAPE)))
    with pytest.raises(ValueError, match=rf"trim={trim} must be at most .* for {num_sites} sites"):
        trimmed_mean(answers, trim)
