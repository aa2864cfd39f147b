import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from fedistill.evaluate.metrics import (
    auc,
    auc_difference,
    auc_standard_error,
    class_scores,
    score,
)


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


def test_class_scores_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.65, 0.35], [0.2, 0.8], [0.3, 0.7]])
    none, some = class_scores(probabilities, np.array([0, 0, 1, 1, 1]))
    assert (none.rows, none.recall, none.precision) == (2, 0.5, 0.5)
    assert (some.rows, some.recall, some.precision) == (3, 2 / 3, 2 / 3)
    # Of class 1, best first: yes, yes, no, yes, no.
    assert some.auprc == pytest.approx((1 / 1 + 2 / 2 + 3 / 4) / 3)
    # Of class 0: yes, no, yes, no, no.
    assert none.auprc == pytest.approx((1 / 1 + 2 / 3) / 2)


@pytest.mark.parametrize("classes", [2, 4])
def test_class_scores_are_those_of_scikit_learn(classes):
    probabilities, labels = _sample(11, 300, classes)
    names = list(range(classes))
    precision, recall, _, rows = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=names
    )
    areas = average_precision_score(np.eye(classes)[labels], probabilities, average=None)
    got = class_scores(probabilities, labels)
    assert [each.recall for each in got] == pytest.approx(recall)
    assert [each.precision for each in got] == pytest.approx(precision)
    assert [each.auprc for each in got] == pytest.approx(areas)
    assert [each.rows for each in got] == rows.tolist()


def test_class_that_is_absent_or_never_chosen_has_undefined_scores():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]])
    first, second, third = class_scores(probabilities, np.array([0, 1]))
    assert (first.recall, first.precision) == (1.0, 0.5)
    assert (second.recall, second.precision) == (0.0, None)
    assert (third.recall, third.precision, third.auprc, third.rows) == (None, None, None, 0)


def test_class_scores_of_infinite_probabilities_are_undefined_but_rows_are_counted():
    first, second = class_scores(np.array([[np.inf, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert (first.recall, first.rows, second.rows) == (None, 2, 0)


def _pair(seed: int, rows: int, classes: int, gap: float) -> tuple[np.ndarray, ...]:
    """Two models that share half of what they know of the rows, and the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    shared = generator.normal(size=(rows, classes))
    models = []
    for strength in (0.8 + gap, 0.8):
        logits = shared + generator.normal(size=(rows, classes))
        logits += strength * np.eye(classes)[labels]
        models.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return models[0], models[1], labels


def _delong_covariance(one: np.ndarray, other: np.ndarray, positive: np.ndarray) -> float:
    """Standard error of the difference as in the paper: structural components, contrast (1, -1)."""
    components = []
    for scores in (one, other):
        ins, outs = scores[positive], scores[~positive]
        wins = (ins[:, None] > outs) + 0.5 * (ins[:, None] == outs)
        components.append((wins.mean(axis=1), wins.mean(axis=0)))
    variance = sum(
        np.cov([components[0][side], components[1][side]]) / len(components[0][side])
        for side in (0, 1)
    )
    contrast = np.array([1, -1])
    return float(np.sqrt(contrast @ variance @ contrast))


def test_error_of_a_difference_follows_delong_with_ties():
    one, other, labels = _pair(0, 180, 2, 0.3)
    one, other = one.round(1), other.round(2)
    difference = auc_difference(one, other, labels)
    assert difference.value == pytest.approx(auc(one, labels) - auc(other, labels))
    expected = _delong_covariance(one[:, 1], other[:, 1], labels == 1)
    assert difference.standard_error == pytest.approx(expected, rel=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("classes", [2, 3])
def test_error_of_a_difference_matches_the_bootstrap(classes):
    one, other, labels = _pair(1, 500, classes, 0.2)
    generator = np.random.default_rng(2)
    draws = [generator.integers(0, len(labels), len(labels)) for _ in range(400)]
    spread = np.std(
        [auc(one[draw], labels[draw]) - auc(other[draw], labels[draw]) for draw in draws]
    )
    # 400 draws: the bootstrap's own relative error is 1 / sqrt(800) = 3.5%; over five times that,
    # so a right error fails less than once in a million seeds.
    assert auc_difference(one, other, labels).standard_error == pytest.approx(spread, rel=0.2)


@pytest.mark.statistical
def test_equal_models_seem_to_differ_in_one_of_twenty_samples():
    # 2,000 samples of 150 rows: the share beyond 1.96 errors is 5% with a spread of 0.5%. The
    # bounds are five spreads wide: false-alarm rate below 1e-6. An error that is 20% too small
    # would give 11%, one that is 20% too large 2%.
    beyond = []
    for seed in range(2000):
        difference = auc_difference(*_pair(seed, 150, 2, 0.0))
        beyond.append(abs(difference.value) > 1.96 * difference.standard_error)
    assert 0.025 < np.mean(beyond) < 0.076


def test_paired_error_is_smaller_than_that_of_independent_samples():
    one, other, labels = _pair(3, 400, 2, 0.1)
    apart = np.hypot(auc_standard_error(one, labels), auc_standard_error(other, labels))
    assert auc_difference(one, other, labels).standard_error < 0.9 * apart


def test_a_model_does_not_differ_from_itself():
    one, _, labels = _pair(4, 60, 3, 0.0)
    difference = auc_difference(one, one, labels)
    assert (difference.value, difference.standard_error) == (0.0, 0.0)


def test_difference_turns_its_sign_with_the_models():
    one, other, labels = _pair(5, 90, 3, 0.4)
    there, back = auc_difference(one, other, labels), auc_difference(other, one, labels)
    assert there.value == -back.value
    assert there.standard_error == pytest.approx(back.standard_error)


@pytest.mark.parametrize(
    ("one", "labels", "value"),
    [
        ([[0.7, 0.3], [0.6, 0.4]], [0, 0], None),
        ([[np.nan, 0.3], [0.6, 0.4]], [0, 1], None),
        ([[0.7, 0.3], [0.4, 0.6]], [0, 1], 0.5),
    ],
)
def test_difference_and_error_are_none_where_rows_do_not_define_them(one, labels, value):
    constant = np.full((2, 2), 0.5)
    difference = auc_difference(np.array(one), constant, np.array(labels))
    assert (difference.value, difference.standard_error) == (value, None)


def test_difference_without_rows_is_undefined():
    empty = np.zeros((0, 3))
    assert auc_difference(empty, empty, np.zeros(0, dtype=np.int64)).value is None
