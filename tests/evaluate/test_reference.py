import numpy as np

from fedistill.evaluate.metrics import score
from fedistill.evaluate.reference import central_reference


def _rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, 3)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] ** 2 > 0.5).astype(np.int64)
    rows[generator.uniform(size=rows.shape) < 0.05] = np.nan
    return rows, labels


def test_learns_a_rule_through_missing_values_and_answers_the_same_twice():
    rows, labels = _rows(0, 600)
    test_rows, test_labels = _rows(1, 300)
    first = central_reference(rows, labels, test_rows, num_classes=2)
    assert first.shape == (300, 2)
    assert score(first, test_labels).auc > 0.9
    np.testing.assert_array_equal(first, central_reference(rows, labels, test_rows, num_classes=2))


def test_class_without_rows_gets_probability_zero():
    rows, labels = _rows(2, 200)
    answer = central_reference(rows, labels * 2, rows[:5], num_classes=3)
    np.testing.assert_array_equal(answer[:, 1], 0)
    np.testing.assert_allclose(answer.sum(axis=1), 1)


def test_single_class_is_answered_with_certainty():
    rows, _ = _rows(3, 20)
    answer = central_reference(rows, np.ones(20, dtype=np.int64), rows[:2], num_classes=2)
    np.testing.assert_array_equal(answer, [[0, 1], [0, 1]])
