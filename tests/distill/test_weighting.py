"""How much each site counts: against closed forms, an independent likelihood, and the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from fedistill.distill.weighting import Answers, agreement_weights, shares, uniform_weights


def draw_answers(
    *, noise=(1.0, 1.0, 1.0), deviation=0.0, gain=0.8, features=200, prior=4.0, seed=0
) -> tuple[Answers, np.ndarray]:
    """Answers of sites that share a truth, each with its own deviation and noise, two classes.

    Variances are of one class before both are centred, as mechanisms state them.
    """
    random = np.random.default_rng(seed)
    num_sites = len(noise)

    def centred(scale, *shape):
        one = random.normal(scale=np.sqrt(scale / 2), size=(*shape, 1))
        return np.concatenate([-one, one], axis=-1)

    truth = centred(prior, features)
    own = centred(deviation, num_sites, features)
    noises = np.stack([centred(each, features) for each in noise])
    answers = Answers(
        values=gain * (truth + own) + noises,
        gain=np.full((num_sites, features), gain),
        noise=np.repeat(np.array(noise, float)[:, None], features, axis=1),
        sampling=np.zeros((num_sites, features)),
        common=np.zeros(features),
    )
    return answers, truth


def test_uniform_counts_every_site_the_same() -> None:
    answers, _ = draw_answers(noise=(1.0, 9.0))
    np.testing.assert_allclose(uniform_weights(answers), 0.5)


def test_sites_that_agree_count_by_their_noise() -> None:
    answers, _ = draw_answers(noise=(1.0, 4.0, 16.0))
    weights = agreement_weights(answers).mean(axis=1)
    inverse = np.array([1.0, 1 / 4, 1 / 16])
    np.testing.assert_allclose(weights, inverse / inverse.sum(), atol=0.06)


def test_sites_that_differ_beyond_their_noise_count_alike() -> None:
    answers, _ = draw_answers(noise=(0.01, 0.02, 0.04), deviation=8.0)
    np.testing.assert_allclose(agreement_weights(answers).mean(axis=1), 1 / 3, atol=0.02)


def test_one_site_has_all_the_weight() -> None:
    answers, _ = draw_answers(noise=(1.0,))
    np.testing.assert_allclose(agreement_weights(answers), 1.0)


def test_answers_without_stated_noise_have_finite_weights() -> None:
    answers, _ = draw_answers(noise=(0.0, 0.0))
    assert np.isfinite(agreement_weights(answers)).all()


@pytest.mark.parametrize("deviation", [0.0, 0.5, 4.0])
def test_weights_are_those_of_the_fitted_random_effects_model(deviation: float) -> None:
    """Oracle: the joint normal density of all answers to a direction, maximised by scipy."""
    noise = np.array([0.5, 2.0, 6.0])
    answers, _ = draw_answers(noise=tuple(noise), deviation=deviation, features=19)
    gain, data = answers.gain[:, 0], answers.values[:, :, 1].T * np.sqrt(2)

    def surprise(log_both: np.ndarray) -> float:
        prior, own = np.exp(log_both)
        covariance = prior * np.outer(gain, gain) + np.diag(gain**2 * own + noise)
        return -float(multivariate_normal.logpdf(data, cov=covariance).sum())

    starts = [(1.0, low) for low in (-4.0, 0.0, 2.0)]
    best = min((minimize(surprise, s, method="Nelder-Mead") for s in starts), key=lambda m: m.fun)
    own = np.exp(best.x[1])
    expected = gain / (noise + gain**2 * own)
    # The variances are fitted on grids of steps of about a quarter and a half.
    np.testing.assert_allclose(
        agreement_weights(answers)[:, 0], expected / expected.sum(), atol=0.06
    )


@pytest.mark.statistical
def test_weighing_by_agreement_is_closer_to_the_truth_than_equal_weights() -> None:
    """Unequal noise, 30 draws: the mean squared error falls each time, by a third at least.

    By the Gauss-Markov theorem the expected ratio is 3 / (13.75 / 16 * 21) = 0.17 here.
    """
    for seed in range(30):
        answers, truth = draw_answers(noise=(1.0, 4.0, 16.0), deviation=0.1, seed=seed)
        errors = []
        for weights in (agreement_weights(answers), uniform_weights(answers)):
            average = np.einsum("sf,sfc->fc", weights, answers.values)
            gain = (weights * answers.gain).sum(axis=0)[:, None]
            errors.append(np.square(average / gain - truth).mean())
        assert errors[0] < 0.67 * errors[1]


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    st.floats(0, 10),
    st.integers(0, 2**31),
)
def test_weights_and_shares_sum_to_one(noise: list[float], deviation: float, seed: int) -> None:
    answers, _ = draw_answers(noise=tuple(noise), deviation=deviation, features=12, seed=seed)
    weights = agreement_weights(answers)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    assert (weights >= 0).all()
    eigenvalues = np.linspace(0.1, 1.0, 12)
    np.testing.assert_allclose(shares(weights, answers, eigenvalues).sum(), 1.0)
