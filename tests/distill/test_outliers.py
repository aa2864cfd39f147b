"""Who is called an outlier, by how much, and what that does to weights."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.distill.outliers import FAR_LIMIT, LIMIT, find_outliers
from fedistill.distill.weighting import Answers, agreement_weights
from tests.distill.test_weighting import draw_answers


def with_answer(answers: Answers, site: int, values: np.ndarray) -> Answers:
    changed = answers.values.copy()
    changed[site] = values
    return replace(answers, values=changed)


def claims_no_noise(answers: Answers, site: int) -> Answers:
    noise = answers.noise.copy()
    noise[site] = 0.0
    return replace(answers, noise=noise)


@pytest.mark.statistical
def test_scores_of_honest_sites_are_standard_normal_at_most() -> None:
    """25 draws of 4 sites, with the law of the model: nobody is called an outlier.

    By chance a score passes `LIMIT` with probability 3e-7; the fitted prior widens that little.
    """
    scores = []
    for seed in range(25):
        answers, _ = draw_answers(noise=(1.0, 2.0, 4.0, 1.0), deviation=0.5, features=30, seed=seed)
        found = find_outliers(answers)
        assert (found.excess == 0).all()
        scores.extend(found.scores)
    assert abs(np.mean(scores)) < 0.5
    assert 0.6 < np.std(scores) < 1.8


@pytest.mark.parametrize("noiseless", [False, True])
def test_an_answer_against_all_others_is_an_outlier(noiseless: bool) -> None:
    answers, truth = draw_answers(noise=(1.0, 1.0, 1.0, 1.0), features=60)
    lie = with_answer(answers, 2, -6 * truth)
    lie = claims_no_noise(lie, 2) if noiseless else lie
    found = find_outliers(lie)
    assert found.scores[2] > 2 * LIMIT
    assert (found.excess > 0).tolist() == [False, False, True, False]
    weights = agreement_weights(lie, found.excess)
    assert (weights[2] < 0.05).all()
    others = np.delete(np.arange(4), 2)
    honest = agreement_weights(answers.of(np.isin(np.arange(4), others)))
    np.testing.assert_allclose(weights[others] / weights[others].sum(axis=0), honest, atol=0.02)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), size=st.floats(30, 1e6), place=st.integers(0, 3))
def test_a_wild_answer_does_not_move_the_weighted_mean(seed: int, size: float, place: int) -> None:
    """Whatever noise it claims: the mean stays near that of the honest sites."""
    answers, _ = draw_answers(noise=(1.0,) * 4, features=40, seed=seed)
    random = np.random.default_rng(seed + 1)
    wild = size * np.sign(random.normal(size=40))[:, None] * np.array([-1.0, 1.0])
    lie = claims_no_noise(with_answer(answers, place, wild), place)
    weights = agreement_weights(lie, find_outliers(lie).excess)
    moved = np.einsum("sf,sfc->fc", weights, lie.values)
    honest = np.delete(answers.values, place, axis=0).mean(axis=0)
    assert np.abs(moved - honest).max() < 1.0


def test_two_of_five_are_found_though_one_hides_the_other() -> None:
    answers, truth = draw_answers(noise=(1.0,) * 5, features=60)
    lies = with_answer(with_answer(answers, 0, -1e4 * truth), 3, -8 * truth)
    assert (find_outliers(lies).excess > 0).tolist() == [True, False, False, True, False]


def test_never_more_than_a_minority_is_set_aside() -> None:
    answers, _ = draw_answers(noise=(1.0,) * 4, features=60)
    random = np.random.default_rng(0)
    for site in range(4):
        one = random.normal(scale=10.0 ** (site + 1), size=(60, 1))
        answers = with_answer(answers, site, np.concatenate([-one, one], axis=1))
    assert (find_outliers(answers).excess > 0).sum() <= 1


@pytest.mark.parametrize("num_sites", [1, 2])
def test_of_two_sites_nobody_can_say_which_is_wrong(num_sites: int) -> None:
    answers, truth = draw_answers(noise=(1.0,) * num_sites, features=60)
    found = find_outliers(with_answer(answers, 0, -100 * truth))
    assert (found.scores == 0).all()
    assert (found.excess == 0).all()


@pytest.mark.parametrize(("shift", "lowered"), [(4.0, False), (300.0, True)])
def test_leading_directions_alone_lower_a_weight_only_from_afar(
    shift: float, lowered: bool
) -> None:
    """Honest sites with unlike class shares differ there, as one with flipped labels does."""
    answers, _ = draw_answers(noise=(1.0,) * 4, features=60)
    changed = answers.values[1].copy()
    changed[-10:] += np.array([-shift, shift])
    found = find_outliers(with_answer(answers, 1, changed))
    assert (found.excess > 0).tolist() == [False, lowered, False, False]
    assert found.scores.argmax() == 1
    assert found.scores[1] > LIMIT
    assert (found.scores[1] > FAR_LIMIT) == lowered


def test_the_order_of_the_sites_does_not_matter() -> None:
    answers, truth = draw_answers(noise=(1.0, 2.0, 3.0, 1.0), features=60)
    lie = with_answer(answers, 1, -6 * truth)
    order = [2, 0, 3, 1]
    turned = replace(
        lie,
        values=lie.values[order],
        gain=lie.gain[order],
        noise=lie.noise[order],
        sampling=lie.sampling[order],
    )
    before, after = find_outliers(lie), find_outliers(turned)
    np.testing.assert_allclose(after.scores, before.scores[order], atol=1e-6)
    np.testing.assert_allclose(after.excess, before.excess[order])
