import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from fedistill.distill.curriculum import (
    Pace,
    curriculum_weights,
    difficulty_by_entropy,
    difficulty_by_noise,
    easiest,
)
from fedistill.errors import ConfigError
from fedistill.labels import EnsembleTarget

RANDOM = np.random.default_rng(2)


def make_target(log_odds: np.ndarray, std: np.ndarray) -> EnsembleTarget:
    return EnsembleTarget(log_odds=log_odds, std=std, num_sites=2)


def test_noise_is_the_root_mean_square_of_a_rows_std():
    std = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 7.0]])
    got = difficulty_by_noise(make_target(np.zeros((3, 2)), std))
    np.testing.assert_allclose(got, [np.sqrt(12.5), 0, 5])


def test_entropy_is_that_of_the_class_probabilities_and_zero_for_certain_rows():
    target = make_target(RANDOM.normal(0, 3, size=(20, 3)), np.ones((20, 3)))
    got = difficulty_by_entropy(target)
    np.testing.assert_allclose(got, entropy(target.probabilities, axis=1), rtol=1e-10)
    certain = make_target(np.array([[2000.0]]), np.ones((1, 1)))
    assert difficulty_by_entropy(certain).tolist() == [0.0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0.01, 1))
def test_no_row_left_out_is_easier_than_one_in_use(values, share):
    difficulty = np.array(values, dtype=float)
    chosen = easiest(difficulty, share)
    others = np.setdiff1d(np.arange(len(difficulty)), chosen)
    assert len(chosen) >= max(1, share * len(difficulty) - 1e-9)
    assert (np.diff(difficulty[chosen]) >= 0).all()
    if len(others):
        assert difficulty[chosen].max() <= difficulty[others].min()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0.01, 1))
def test_weights_are_of_mean_one_on_the_easiest_rows_alone(values, share):
    difficulty = np.array(values, dtype=float)
    weights = curriculum_weights(difficulty, share)
    assert weights.mean() == pytest.approx(1)
    assert set(np.flatnonzero(weights)) == set(easiest(difficulty, share))


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_share_grows_from_the_first_to_all_rows(first, full, one, other):
    pace = Pace(first_share=first, full_at=full)
    assert pace.share(0) == first
    assert pace.share(full) == pace.share(1) == pytest.approx(1)
    assert pace.share(min(one, other)) <= pace.share(max(one, other)) + 1e-12


def test_the_default_pace_by_hand():
    shares = [Pace().share(progress) for progress in (0, 0.25, 0.5, 1)]
    assert shares == pytest.approx([0.3, 0.65, 1, 1])


@pytest.mark.parametrize("name", ["first_share", "full_at"])
@pytest.mark.parametrize("value", [0.0, -0.1, 1.5])
def test_a_pace_out_of_bounds_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value} must be above 0 and at most 1"):
        Pace(**{name: value})
