import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fedistill.distill.noise_aware import (
    confidence_weights,
    propagate_labels,
    rare_class_weights,
)
from fedistill.errors import ConfigError
from fedistill.labels import EnsembleTarget

RANDOM = np.random.default_rng(8)


def make_target(std: np.ndarray) -> EnsembleTarget:
    log_odds = np.random.default_rng(0).normal(0, 2, size=std.shape)
    return EnsembleTarget(log_odds=log_odds, std=std, num_sites=2)


def closed_form(
    features: np.ndarray, labels: np.ndarray, neighbours: int, alpha: float
) -> np.ndarray:
    """(1 - alpha) (I - alpha D^-1 W)^-1 labels from dense distances."""
    distances = np.linalg.norm(features[:, None] - features, axis=2)
    np.fill_diagonal(distances, np.inf)
    farthest = np.sort(distances, axis=1)[:, neighbours - 1]
    near = distances <= farthest[:, None]
    graph = np.exp(-((distances / np.median(farthest)) ** 2) / 2) * (near | near.T)
    moves = graph / graph.sum(axis=1, keepdims=True)
    return (1 - alpha) * np.linalg.solve(np.eye(len(labels)) - alpha * moves, labels)


def test_confidence_by_its_formula_on_target_spreads():
    target = make_target(RANDOM.uniform(0, 4, size=(30, 2)))
    spread = target.log_odds.std(axis=0)
    raw = [1 / (1 + np.mean((row / spread) ** 2)) for row in target.std]
    np.testing.assert_allclose(confidence_weights(target), raw / np.mean(raw))


@settings(deadline=None)
@given(st.lists(st.floats(0, 50), min_size=2, max_size=20))
def test_surer_rows_count_more_and_weights_have_mean_one(std):
    weights = confidence_weights(make_target(np.array(std)[:, None]))
    assert weights.mean() == pytest.approx(1)
    order = np.argsort(std, kind="stable")
    assert (np.diff(weights[order]) <= 1e-12).all()


def test_rows_of_equal_std_count_alike_and_a_constant_target_is_no_fault():
    np.testing.assert_allclose(confidence_weights(make_target(np.full((5, 2), 3.0))), 1)
    flat = EnsembleTarget(log_odds=np.zeros((4, 1)), std=np.zeros((4, 1)), num_sites=1)
    np.testing.assert_allclose(confidence_weights(flat), 1)


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_rare_classes_weigh_by_their_effective_number_of_rows(beta):
    labels = np.eye(3)[[0] * 60 + [1] * 30 + [2] * 10]
    effective = [(1 - beta) / (1 - beta**n) for n in (60, 30, 10)]
    weights = rare_class_weights(labels, beta=beta, at_most=100)
    got = weights[[0, 60, 90]]
    np.testing.assert_allclose(got / got[0], np.array(effective) / effective[0])
    assert weights.mean() == pytest.approx(1)


def test_a_soft_row_weighs_the_average_of_its_classes():
    labels = np.concatenate(
        [np.repeat([[1.0, 0.0]], 80, axis=0), np.repeat([[0.0, 1.0]], 9, axis=0), [[0.5, 0.5]]]
    )
    weights = rare_class_weights(labels)
    assert weights[-1] == pytest.approx((weights[0] + weights[80]) / 2)
    assert weights[80] > 3 * weights[0]


def test_the_ratio_between_classes_is_bounded_even_for_a_class_without_rows():
    labels = np.eye(3)[[0] * 5000 + [1]]
    assert rare_class_weights(labels, beta=0.9999, at_most=10).max() == pytest.approx(
        10 * rare_class_weights(labels, beta=0.9999, at_most=10).min()
    )
    np.testing.assert_allclose(rare_class_weights(labels, beta=0.0), 1)


def test_noised_probabilities_give_finite_positive_weights():
    noised = np.array([[-0.4, -0.1], [1.7, -0.6], [0.2, 0.9], [0.0, 0.0]])
    weights = rare_class_weights(noised)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_many_steps_reach_the_closed_form(alpha):
    features, labels = RANDOM.normal(size=(40, 3)), RANDOM.normal(size=(40, 4))
    got = propagate_labels(features, labels, neighbours=5, alpha=alpha, steps=300)
    np.testing.assert_allclose(got, closed_form(features, labels, 5, alpha), atol=1e-10)


def test_twenty_steps_are_within_alpha_to_the_twentieth_of_the_closed_form():
    features, labels = RANDOM.normal(size=(60, 3)), RANDOM.normal(size=(60, 2))
    exact = closed_form(features, labels, 10, 0.8)
    gap = np.abs(propagate_labels(features, labels) - exact).max()
    assert gap <= 0.8**20 * np.abs(labels - exact).max()


def test_probabilities_stay_probabilities_and_constants_stay():
    features = RANDOM.normal(size=(50, 2))
    spread = propagate_labels(features, RANDOM.dirichlet(np.ones(3), 50))
    np.testing.assert_allclose(spread.sum(axis=1), 1)
    assert (spread >= 0).all()
    np.testing.assert_allclose(propagate_labels(features, np.full((50, 1), 0.3)), 0.3)


def test_propagation_is_linear_so_noise_of_mean_zero_stays_so():
    features = RANDOM.normal(size=(30, 2))
    clean, noise = RANDOM.normal(size=(2, 30, 3))
    both = [propagate_labels(features, clean + sign * noise) for sign in (1, -1)]
    np.testing.assert_allclose(sum(both) / 2, propagate_labels(features, clean), atol=1e-12)


def test_noise_shrinks_where_clusters_share_a_label():
    truth = np.repeat([0.0, 1.0], 100)[:, None]
    features = RANDOM.normal(size=(200, 2)) + 20 * truth
    noised = truth + RANDOM.normal(size=(200, 1))
    error = np.sqrt(np.mean((propagate_labels(features, noised) - truth) ** 2))
    # At the least the row's own share of 0.2 of its noise stays; over 10 neighbours, about 0.35.
    assert 0.2 < error < 0.5


def test_propagation_mends_wrong_labels_of_real_digits():
    images, digits = load_digits(return_X_y=True)
    images, digits = images[:600] / 16, digits[:600]
    random = np.random.default_rng(0)
    noised = np.eye(10)[digits] + random.normal(0, 0.8, (600, 10))
    before = np.mean(noised.argmax(axis=1) == digits)
    after = np.mean(propagate_labels(images, noised).argmax(axis=1) == digits)
    assert before < 0.6
    assert after > 0.85


def test_copies_outliers_and_tiny_tables_are_no_fault():
    labels = RANDOM.normal(size=(6, 2))
    copies = propagate_labels(np.zeros((6, 2)), labels, neighbours=5, steps=300)
    moves = (np.ones((6, 6)) - np.eye(6)) / 5
    expected = 0.2 * np.linalg.solve(np.eye(6) - 0.8 * moves, labels)
    np.testing.assert_allclose(copies, expected, atol=1e-10)
    far = np.concatenate([RANDOM.normal(size=(5, 2)), [[1e9, 0.0]]])
    assert np.isfinite(propagate_labels(far, labels, neighbours=2)).all()
    np.testing.assert_array_equal(propagate_labels(far[:1], labels[:1]), labels[:1])
    assert np.isfinite(propagate_labels(far[:3], labels[:3])).all()


@pytest.mark.parametrize("setting", [{"steps": 0}, {"alpha": 0.0}])
def test_no_steps_and_no_alpha_keep_the_labels(setting):
    labels = RANDOM.normal(size=(15, 2))
    got = propagate_labels(RANDOM.normal(size=(15, 3)), labels, **setting)
    np.testing.assert_allclose(got, labels)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"neighbours": 0}, "neighbours=0 must be at least 1"),
        ({"alpha": 1.0}, r"alpha=1\.0 must be at least 0 and below 1"),
        ({"alpha": -0.1}, r"alpha=-0\.1 must be"),
        ({"steps": -1}, "steps=-1 must be at least 0"),
    ],
)
def test_settings_of_propagation_out_of_bounds_are_refused(setting, text):
    with pytest.raises(ConfigError, match=text):
        propagate_labels(np.zeros((3, 1)), np.zeros((3, 1)), **setting)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"beta": 1.0}, r"beta=1\.0 must be at least 0 and below 1"),
        ({"beta": -1.0}, r"beta=-1\.0 must be"),
        ({"at_most": 0.5}, r"at_most=0\.5 must be at least 1"),
    ],
)
def test_settings_of_rare_classes_out_of_bounds_are_refused(setting, text):
    with pytest.raises(ConfigError, match=text):
        rare_class_weights(np.ones((3, 2)), **setting)
