import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.evaluate.metrics import auc_standard_error, expected_calibration_error, score


def _sample(seed: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes)) + 0.8 * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def _delong_by_definition(scores: np.ndarray, positive: np.ndarray) -> float:
    ins, outs = scores[positive], scores[~positive]
    wins = (ins[:, None] > outs) + 0.5 * (ins[:, None] == outs)
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    return float(np.sqrt(v10.var(ddof=1) / len(ins) + v01.var(ddof=1) / len(outs)))


def test_scores_of_four_rows_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
    scores = score(probabilities, np.array([0, 0, 1, 1]))
    assert scores.auc == pytest.approx(0.75)
    assert scores.accuracy == pytest.approx(0.75)
    assert scores.log_loss == pytest.approx(-np.log([0.9, 0.6, 0.35, 0.8]).mean())
    assert scores.ece == pytest.approx((0.1 + 0.4 + 0.65 + 0.2) / 4)


def test_auc_beyond_two_classes_is_the_mean_of_the_one_vs_rest_curves():
    probabilities, labels = _sample(0, 200, 3)
    pairs = [
        np.mean(
            (probabilities[labels == k, k][:, None] > probabilities[labels != k, k])
            + 0.5 * (probabilities[labels == k, k][:, None] == probabilities[labels != k, k])
        )
        for k in range(3)
    ]
    assert score(probabilities, labels).auc == pytest.approx(np.mean(pairs))


def test_standard_error_follows_delong_with_ties():
    probabilities, labels = _sample(1, 150, 2)
    rounded = probabilities.round(1)
    expected = _delong_by_definition(rounded[:, 1], labels == 1)
    assert auc_standard_error(rounded, labels) == pytest.approx(expected, rel=1e-12)


def test_standard_error_beyond_two_classes_matches_the_bootstrap():
    probabilities, labels = _sample(2, 400, 3)
    generator = np.random.default_rng(3)
    draws = [generator.integers(0, len(labels), len(labels)) for _ in range(300)]
    spread = np.std([score(probabilities[draw], labels[draw]).auc for draw in draws])
    # 300 draws: the bootstrap's own relative error is 1 / sqrt(600) = 4%; six times that.
    assert auc_standard_error(probabilities, labels) == pytest.approx(spread, rel=0.25)


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


def test_one_class_in_the_labels_leaves_the_auc_undefined_and_the_rest_defined():
    scores = score(np.array([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 0]))
    assert (scores.auc, scores.auc_standard_error, scores.accuracy) == (None, None, 1.0)


def test_class_without_rows_is_left_out_of_the_average():
    probabilities, labels = _sample(5, 100, 3)
    kept = labels != 2
    rows, present = probabilities[kept], labels[kept]
    curves = [np.mean(rows[present == k, k][:, None] > rows[present != k, k]) for k in (0, 1)]
    assert score(rows, present).auc == pytest.approx(np.mean(curves))


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=np.int64)),
        (np.array([[np.nan, 0.5], [0.5, 0.5]]), np.array([0, 1])),
        (np.array([[np.inf, 0.5], [0.5, 0.5]]), np.array([0, 1])),
    ],
)
def test_rows_that_define_nothing_give_no_figures(probabilities, labels):
    scores = score(probabilities, labels)
    assert set(scores.model_dump().values()) == {None}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 20),
    classes=st.integers(2, 4),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["soft", "one-hot", "zero", "float32"]),
)
def test_score_is_total(rows, classes, seed, kind):
    probabilities, labels = _sample(seed, rows, classes)
    if kind == "one-hot":
        probabilities = np.eye(classes)[probabilities.argmax(axis=1)]
    elif kind == "zero":
        probabilities = np.zeros_like(probabilities)
    elif kind == "float32":
        probabilities = probabilities.astype(np.float32)
    for value in score(probabilities, labels).model_dump().values():
        assert value is None or value >= 0
