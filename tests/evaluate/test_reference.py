import numpy as np

from fedistill.data.schema import ColumnSchema, Kind, numbers
from fedistill.evaluate import reference
from fedistill.evaluate.metrics import score
from fedistill.evaluate.reference import central_reference

NUMBERS = numbers("abc")


def _rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, 3)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] ** 2 > 0.5).astype(np.int64)
    rows[generator.uniform(size=rows.shape) < 0.05] = np.nan
    return rows, labels


def test_learns_a_rule_through_missing_values_and_answers_the_same_twice():
    rows, labels = _rows(0, 600)
    test_rows, test_labels = _rows(1, 300)
    first = central_reference(rows, labels, test_rows, num_classes=2, schema=NUMBERS)
    assert first.shape == (300, 2)
    assert score(first, test_labels).auc > 0.9
    np.testing.assert_array_equal(
        first, central_reference(rows, labels, test_rows, num_classes=2, schema=NUMBERS)
    )


def test_class_without_rows_gets_probability_zero():
    rows, labels = _rows(2, 200)
    answer = central_reference(rows, labels * 2, rows[:5], num_classes=3, schema=NUMBERS)
    np.testing.assert_array_equal(answer[:, 1], 0)
    np.testing.assert_allclose(answer.sum(axis=1), 1)


def test_single_class_is_answered_with_certainty():
    rows, _ = _rows(3, 20)
    answer = central_reference(
        rows, np.ones(20, dtype=np.int64), rows[:2], num_classes=2, schema=NUMBERS
    )
    np.testing.assert_array_equal(answer, [[0, 1], [0, 1]])


def test_a_category_is_seen_as_its_indicator_columns_are():
    random = np.random.default_rng(4)
    category = ColumnSchema(name="c", kind=Kind.CATEGORY, categories=("p", "q", "r", "s"))
    rows, test_rows = random.integers(0, 4, size=(2, 300, 1)).astype(np.float32)
    rows[:20] = np.nan
    labels = np.isin(rows[:, 0], [0, 2]).astype(np.int64)
    answer = central_reference(rows, labels, test_rows, num_classes=2, schema=(category,))

    def by_hand(some: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(some), np.nan, some == np.arange(4)).astype(np.float32)

    expected = central_reference(
        by_hand(rows), labels, by_hand(test_rows), num_classes=2, schema=numbers("pqrs")
    )
    np.testing.assert_array_equal(answer, expected)
    assert score(answer, np.isin(test_rows[:, 0], [0, 2]).astype(np.int64)).auc == 1


def test_a_column_without_a_value_is_left_aside():
    rows, labels = _rows(5, 200)
    test_rows, _ = _rows(6, 20)
    rows[:, 2] = np.nan
    answer = central_reference(rows, labels, test_rows, num_classes=2, schema=NUMBERS)
    test_rows[:, 2] = np.nan
    same = central_reference(rows, labels, test_rows, num_classes=2, schema=NUMBERS)
    np.testing.assert_array_equal(answer, same)


def test_of_a_wide_table_the_model_sees_fewer_rows_of_all_kinds(monkeypatch):
    """Rows that are sorted by class: a first part of them would know one class alone."""
    rows, labels = _rows(5, 400)
    order = np.argsort(labels, kind="stable")
    test_rows, test_labels = _rows(6, 300)
    whole = central_reference(rows, labels, test_rows, num_classes=2, schema=NUMBERS)
    monkeypatch.setattr(reference, "MOST_NUMBERS", 3 * 120)
    part = central_reference(rows[order], labels[order], test_rows, num_classes=2, schema=NUMBERS)
    assert not np.array_equal(part, whole)
    assert score(part, test_labels).auc > 0.75
