import numpy as np
import pytest
from examples import answers

from fedistill.evaluate.comparison import compare
from fedistill.evaluate.metrics import auc, score


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 2, 300)


def test_gains_are_the_students_auc_less_the_own_models(labels):
    student, local, private = (answers(seed, labels, 2, seed / 3) for seed in (3, 2, 1))
    comparison = compare(local=local, local_private=private, student=student, labels=labels)
    assert comparison.test_rows == 300
    assert comparison.local == score(local, labels)
    assert comparison.student == score(student, labels)
    assert comparison.gain.value == pytest.approx(auc(student, labels) - auc(local, labels))
    assert comparison.gain_private.value == pytest.approx(
        auc(student, labels) - auc(private, labels)
    )


def test_a_model_that_is_missing_leaves_its_figures_undefined(labels):
    student = answers(0, labels, 2, 1.0)
    comparison = compare(local=student, local_private=None, student=student, labels=labels)
    assert comparison.local_private.auc is None
    assert comparison.gain_private.value is None
    assert comparison.gain.value == 0


def test_rows_of_one_class_and_no_rows_are_compared_without_figures():
    for count in (0, 5):
        flat = np.full((count, 2), 0.5)
        labels = np.zeros(count, dtype=np.int64)
        comparison = compare(local=flat, local_private=flat, student=flat, labels=labels)
        assert comparison.test_rows == count
        assert comparison.gain.value is None
