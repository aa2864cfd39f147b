import numpy as np
import pytest
import torch
from scipy.special import softmax

from fedistill.distill.mean_teacher import consistency_error


def test_consistency_is_the_weighted_mean_square_between_probabilities():
    student, teacher = np.random.default_rng(0).normal(size=(2, 7, 3))
    weights = np.random.default_rng(1).random(7)
    gaps = (softmax(student, axis=1) - softmax(teacher, axis=1)) ** 2
    got = consistency_error(*map(torch.tensor, (student, teacher, weights)))
    assert got.item() == pytest.approx((weights[:, None] * gaps).mean())


def test_consistency_trains_the_student_alone():
    student, teacher = (
        torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    weights = torch.rand(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: consistency_error(z, teacher, weights), student)
    consistency_error(student, teacher, weights).backward()
    assert teacher.grad is None
