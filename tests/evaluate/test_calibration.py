import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.evaluate.calibration import (
    calibration,
    expected_calibration_error,
    wilson_interval,
)


def _two(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=1)


def test_bins_hold_equal_numbers_of_rows_from_low_to_high():
    generator = np.random.default_rng(0)
    positive = generator.uniform(size=1000)
    labels = (generator.uniform(size=1000) < positive).astype(np.int64)
    bins = calibration(_two(positive), labels)
    assert [each.rows for each in bins] == [100] * 10
    lowest = np.sort(positive)[:100]
    assert bins[0].predicted == pytest.approx(lowest.mean())
    assert bins[0].observed == pytest.approx(labels[positive <= lowest.max()].mean())
    predicted = [each.predicted for each in bins]
    assert predicted == sorted(predicted)


def test_equal_predictions_share_a_bin_and_larger_ones_do_not():
    positive = np.array([0.1] * 95 + [0.9] * 5)
    bins = calibration(_two(positive), (positive > 0.5).astype(np.int64))
    assert [(each.rows, each.observed) for each in bins] == [(95, 0.0), (5, 1.0)]
    assert [each.predicted for each in bins] == pytest.approx([0.1, 0.9])


def test_beyond_two_classes_the_most_probable_class_is_judged():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    first, second = calibration(probabilities, np.array([1, 1]))
    assert (first.predicted, first.observed) == (pytest.approx(0.6), 0.0)
    assert (second.predicted, second.observed) == (pytest.approx(0.8), 1.0)


def test_interval_is_wilsons_also_where_all_or_none_were_so():
    from scipy.stats import binomtest

    for count, rows in ((0, 12), (3, 40), (7, 7), (499, 500)):
        expected = binomtest(count, rows).proportion_ci(0.95, method="wilson")
        assert wilson_interval(count, rows) == pytest.approx(
            (expected.low, expected.high), abs=1e-6
        )


@pytest.mark.statistical
def test_calibrated_predictions_fall_inside_the_interval_in_19_of_20_bins():
    # 4,000 bins of 200 rows, predictions 0.3 to 0.7, where Wilson covers 95% to within 1%; bins of
    # mixed predictions are a little narrower than binomial. Binomial spread of the share 0.35%;
    # bounds are over five of them away: false-alarm rate below 1e-6.
    generator = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        positive = generator.uniform(0.3, 0.7, size=2000)
        labels = (generator.uniform(size=2000) < positive).astype(np.int64)
        inside += [
            each.low <= each.predicted <= each.high for each in calibration(_two(positive), labels)
        ]
    assert 0.93 < np.mean(inside) < 0.97


@pytest.mark.parametrize(
    "probabilities", [np.zeros((0, 2)), np.array([[np.nan, 1.0]]), np.array([[np.inf, 0.0]])]
)
def test_rows_that_define_nothing_give_no_bins(probabilities):
    assert calibration(probabilities, np.zeros(len(probabilities), dtype=np.int64)) == ()


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), classes=st.integers(2, 4), seed=st.integers(0, 999))
def test_every_row_is_in_one_bin(rows, classes, seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), size=rows).round(1)
    bins = calibration(probabilities, generator.integers(0, classes, rows))
    assert sum(each.rows for each in bins) == rows
    assert 1 <= len(bins) <= 10
    assert all(0 <= each.low <= each.observed <= each.high <= 1 for each in bins)


def test_constant_predictor_has_the_gap_of_one_bin():
    correct = np.arange(1000) % 4 != 0
    assert expected_calibration_error(np.full(1000, 0.6), correct) == pytest.approx(0.15)


def test_calibrated_predictor_has_a_small_ece_and_an_overconfident_one_a_large():
    generator = np.random.default_rng(4)
    confidence = generator.uniform(0.5, 1, 60_000)
    correct = generator.uniform(size=60_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.01
    assert expected_calibration_error((1 + confidence) / 2, correct) == pytest.approx(
        0.125, abs=0.01
    )
