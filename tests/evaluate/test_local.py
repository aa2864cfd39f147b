import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.evaluate import local
from fedistill.evaluate.local import local_model
from fedistill.evaluate.metrics import auc


def _rows(seed: int, count: int, rule: str, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, columns)).astype(np.float32)
    signal = rows[:, 0] + rows[:, 1] if rule == "linear" else rows[:, 0] * rows[:, 1]
    labels = (signal + generator.logistic(size=count) * 0.3 > 0).astype(np.int64)
    rows[generator.uniform(size=rows.shape) < 0.05] = np.nan
    return rows, labels


@pytest.mark.parametrize(("rule", "learner"), [("linear", "_logistic"), ("product", "_boosted")])
def test_the_learner_that_ranks_better_on_the_site_is_chosen(rule, learner):
    rows, labels = _rows(0, 400, rule)
    test_rows, test_labels = _rows(1, 500, rule)
    answer = local_model(rows, labels, test_rows, num_classes=2)
    expected = getattr(local, learner)(rows, labels, test_rows, 2)
    np.testing.assert_array_equal(answer, expected)
    assert auc(answer, test_labels) > 0.7
    np.testing.assert_allclose(answer.sum(axis=1), 1)


def test_of_many_columns_boosting_is_not_tried(monkeypatch):
    monkeypatch.setattr(local, "_boosted", lambda *_: pytest.fail("tried"))
    rows = np.random.default_rng(0).normal(size=(60, local.MOST_COLUMNS_TO_BOOST + 1))
    labels = (rows[:, 0] > 0).astype(np.int64)
    answer = local_model(
        rows.astype(np.float32), labels, rows[:9].astype(np.float32), num_classes=2
    )
    assert ((answer[:, 1] > 0.5) == labels[:9]).mean() > 0.8
    with pytest.raises(pytest.fail.Exception):
        local_model(rows[:, :5].astype(np.float32), labels, rows[:9, :5], num_classes=2)


def test_same_rows_give_the_same_answer():
    rows, labels = _rows(2, 90, "linear")
    answers = [local_model(rows, labels, rows, num_classes=2) for _ in range(2)]
    np.testing.assert_array_equal(*answers)


def test_one_class_is_answered_with_certainty():
    rows, _ = _rows(3, 40, "linear")
    answer = local_model(rows, np.ones(40, dtype=np.int64), rows[:3], num_classes=3)
    np.testing.assert_array_equal(answer, [[0, 1, 0]] * 3)


def test_a_few_rows_are_answered_with_their_class_shares():
    rows, _ = _rows(4, 8, "linear")
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    answer = local_model(rows, labels, rows[:2], num_classes=4)
    np.testing.assert_allclose(answer, [[3 / 8, 4 / 8, 1 / 8, 0]] * 2)


def test_without_rows_all_classes_are_equal():
    none = np.zeros((0, 2), dtype=np.float32)
    answer = local_model(none, np.zeros(0, dtype=np.int64), np.zeros((2, 2)), num_classes=4)
    np.testing.assert_array_equal(answer, np.full((2, 4), 0.25))


def test_class_of_one_row_is_learned_though_it_cannot_be_held_out():
    rows, labels = _rows(5, 60, "linear")
    labels[0] = 2
    answer = local_model(rows, labels, rows, num_classes=4)
    assert answer.shape == (60, 4)
    assert (answer[:, 2] > 0).all()
    assert (answer[:, 3] == 0).all()


def test_columns_without_a_value_and_infinite_values_do_no_harm():
    rows, labels = _rows(6, 120, "linear")
    rows[:, 2] = np.nan
    rows[5, 3], rows[7, 3] = np.inf, np.float32(3e38)
    for learner in (local._logistic, local._boosted):
        finite = local._finite(rows)
        assert np.isfinite(learner(finite, labels, finite, 2)).all()
    assert np.isfinite(local_model(rows, labels, rows, num_classes=2)).all()


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 30), classes=st.integers(2, 4), seed=st.integers(0, 999))
def test_every_site_gets_probabilities(rows, classes, seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, 3)).astype(np.float32)
    values[generator.uniform(size=values.shape) < 0.5] = np.nan
    labels = generator.integers(0, classes, rows)
    answer = local_model(values, labels, np.zeros((4, 3), np.float32), num_classes=classes)
    assert answer.shape == (4, classes)
    np.testing.assert_allclose(answer.sum(axis=1), 1)


def test_a_large_site_is_done_within_seconds_of_processor_time():
    rows, labels = _rows(7, 6500, "product", columns=32)
    start = time.process_time()
    local_model(rows, labels, rows[:2000], num_classes=2)
    assert time.process_time() - start < 20
