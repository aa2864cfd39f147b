import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from fedistill.distill.ensembles import (
    agreement_weighted,
    deviation_between_sites,
    equally_weighted,
    logit_product,
    uncertainty_weighted,
)
from fedistill.errors import ConfigError

RANDOM = np.random.default_rng(4)
ANSWERS = RANDOM.normal(size=(3, 8, 4))
STD = RANDOM.uniform(0.2, 2, size=(3, 8, 4))
COMBINATIONS = [equally_weighted, agreement_weighted, uncertainty_weighted]


def test_the_mean_entry_by_entry():
    combined = equally_weighted(ANSWERS, STD)
    for row in range(8):
        for place in range(4):
            values = [ANSWERS[site, row, place] for site in range(3)]
            noise = [STD[site, row, place] ** 2 for site in range(3)]
            assert combined.values[row, place] == pytest.approx(sum(values) / 3)
            assert combined.std[row, place] == pytest.approx(np.sqrt(sum(noise)) / 3)


def test_uncertain_rows_of_a_site_count_by_their_inverse_variance():
    combined = uncertainty_weighted(ANSWERS, STD)
    for row in range(8):
        weights = np.array([1 / np.mean(STD[site, row] ** 2) for site in range(3)])
        weights /= weights.sum()
        np.testing.assert_allclose(combined.values[row], weights @ ANSWERS[:, row])
        np.testing.assert_allclose(combined.std[row], np.sqrt(weights**2 @ STD[:, row] ** 2))


def test_dersimonian_and_lairds_variance_for_a_single_entry():
    # Four trials: their formula with weights 1 / variance, step by step.
    effects, variances = [0.1, 0.9, -0.4, 0.5], [0.04, 0.09, 0.01, 0.16]
    weights = [1 / v for v in variances]
    centre = sum(w * y for w, y in zip(weights, effects, strict=True)) / sum(weights)
    q = sum(w * (y - centre) ** 2 for w, y in zip(weights, effects, strict=True))
    expected = (q - 3) / (sum(weights) - sum(w**2 for w in weights) / sum(weights))
    answers, std = (np.array(x).reshape(4, 1, 1) for x in (effects, np.sqrt(variances)))
    assert expected > 0
    assert deviation_between_sites(answers, std) == pytest.approx(expected)
    star = [1 / (v + expected) for v in variances]
    combined = agreement_weighted(answers, std)
    pooled = sum(w * y for w, y in zip(star, effects, strict=True)) / sum(star)
    assert combined.values.item() == pytest.approx(pooled)
    assert combined.std.item() == pytest.approx(1 / np.sqrt(sum(star)))


def test_where_sites_agree_agreement_weighs_by_noise_alone():
    std = np.broadcast_to(np.array([0.1, 1.0, 3.0])[:, None, None], (3, 8, 4))
    agreed = np.broadcast_to(ANSWERS[0], (3, 8, 4))
    assert deviation_between_sites(agreed, std) == 0
    noised = agreed + 1e-3 * ANSWERS
    expected = uncertainty_weighted(noised, std)
    got = agreement_weighted(noised, std)
    np.testing.assert_allclose(got.values, expected.values)
    np.testing.assert_allclose(got.std, expected.std)


def test_where_sites_differ_far_beyond_their_noise_all_count_alike():
    got = agreement_weighted(1e4 * ANSWERS, STD)
    np.testing.assert_allclose(got.values / 1e4, ANSWERS.mean(axis=0), atol=1e-3)


@pytest.mark.statistical
@pytest.mark.parametrize("deviation", [0.0, 0.5, 2.0])
def test_the_deviation_between_sites_is_found(deviation):
    # Five sites, 40,000 entries: the estimate's spread is below 2% of (deviation^2 + 0.4), and the
    # bounds are over five spreads wide: false-alarm rate below 1e-6.
    random = np.random.default_rng(6)
    std = np.broadcast_to(np.array([0.2, 0.4, 0.6, 0.8, 1.0])[:, None, None], (5, 10_000, 4))
    sites = random.normal(0, 1, (1, 10_000, 4)) + random.normal(0, deviation, std.shape)
    found = deviation_between_sites(sites + random.normal(size=std.shape) * std, std)
    assert abs(found - deviation**2) < 0.1 * (deviation**2 + 0.4)


@pytest.mark.statistical
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_stated_std_is_that_of_the_combined_noise(combine):
    # 40,000 entries of one truth: the relative spread is 0.35% and the bounds are over eight
    # spreads wide: false-alarm rate below 1e-6.
    random = np.random.default_rng(7)
    std = np.broadcast_to(np.array([0.5, 1.0, 3.0])[:, None, None], (3, 10_000, 4))
    combined = combine(random.normal(size=std.shape) * std, std)
    assert (combined.values / combined.std).std() == pytest.approx(1, rel=0.03)


def test_uncertainty_weights_have_less_noise_than_the_mean():
    std = np.broadcast_to(np.array([0.1, 1.0, 3.0])[:, None, None], (3, 8, 4))
    assert (uncertainty_weighted(ANSWERS, std).std < 0.1).all()
    assert (equally_weighted(ANSWERS, std).std > 1).all()


def test_the_product_of_distributions_is_normalised_row_by_row():
    likely = softmax(ANSWERS, axis=2)
    geometric = np.prod(likely, axis=0) ** (1 / 3)
    experts = np.prod(likely, axis=0)
    for power, product in ((None, geometric), (1.0, experts)):
        got = logit_product(ANSWERS, power=power)
        np.testing.assert_allclose(got.values, product / product.sum(axis=1, keepdims=True))
        assert got.std is None


def test_the_product_does_not_see_a_sites_offset_and_bears_great_logits():
    shifted = ANSWERS + RANDOM.normal(0, 9, size=(3, 8, 1))
    np.testing.assert_allclose(logit_product(shifted).values, logit_product(ANSWERS).values)
    great = logit_product(1e5 * ANSWERS, power=1.0).values
    np.testing.assert_allclose(great.sum(axis=1), 1)


@pytest.mark.parametrize("power", [0.0, -1.0, float("inf"), float("nan")])
def test_a_power_out_of_bounds_is_refused(power):
    with pytest.raises(ConfigError, match=f"power={power} must be above 0"):
        logit_product(ANSWERS, power=power)


@settings(deadline=None)
@given(
    sites=st.integers(1, 4), rows=st.integers(1, 5), classes=st.integers(1, 3),
    seed=st.integers(0, 999), exact=st.booleans(),
)  # fmt: skip
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_combinations_lie_between_the_sites_whatever_their_order(
    combine, sites, rows, classes, seed, exact
):
    random = np.random.default_rng(seed)
    answers = random.normal(size=(sites, rows, classes))
    std = np.zeros_like(answers) if exact else random.uniform(0, 3, answers.shape)
    combined, other = combine(answers, std), combine(answers[::-1], std[::-1])
    assert combined.values.shape == combined.std.shape == (rows, classes)
    assert (combined.values >= answers.min(axis=0) - 1e-9).all()
    assert (combined.values <= answers.max(axis=0) + 1e-9).all()
    assert (combined.std >= 0).all()
    np.testing.assert_allclose(combined.values, other.values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_single_site_is_its_own_ensemble(combine):
    combined = combine(ANSWERS[:1], np.ones((1, 8, 4)))
    np.testing.assert_allclose(combined.values, ANSWERS[0])
    np.testing.assert_allclose(combined.std, 1)
