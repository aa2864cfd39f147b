import numpy as np
import pytest
import torch

from fedistill.distill.encoding import TabularEncoding
from fedistill.distill.network_students import make_student
from fedistill.distill.students import (
    TabularStudent,
    predict_log_odds,
    predict_probabilities,
)
from fedistill.errors import ConfigError


def test_an_mlp_student_has_two_hidden_layers_of_64_and_one_logit_a_class(proxy, rows):
    student = make_student("mlp", proxy, num_classes=3)
    assert student.hidden == (64, 64)
    assert student(torch.tensor(rows[:5])).shape == (5, 3)
    assert student.num_parameters == 64 * (student.encoding.width + 1) + 64 * 65 + 3 * 65


def test_an_unknown_student_is_named_in_the_error(proxy):
    with pytest.raises(ConfigError, match="student='forest'"):
        make_student("forest", proxy, num_classes=2)


def test_probabilities_are_the_softmax_of_log_odds_with_class_0_as_zero(proxy, rows):
    student = TabularStudent(TabularEncoding.fit(proxy), (8,), num_classes=3)
    odds = np.exp(np.insert(predict_log_odds(student, rows), 0, 0, axis=1))
    answers = predict_probabilities(student, rows)
    assert answers.dtype == np.float64
    np.testing.assert_allclose(answers, odds / odds.sum(axis=1, keepdims=True), atol=1e-12)
