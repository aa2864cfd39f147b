import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from fedistill.distill.mean_teacher import consistency_error, moving_average
from fedistill.errors import ConfigError


def test_the_teacher_is_the_exponential_average_of_weights_and_of_buffers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = moving_average(model, decay=0.9)
    states = []
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        model(torch.randn(8, 3))
        average.update_parameters(model)
        states.append(copy.deepcopy(model.state_dict()))
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        expected = states[0][name]
        for state in states[1:]:
            expected = 0.9 * expected + 0.1 * state[name]
        torch.testing.assert_close(average.module.state_dict()[name], expected)


def test_without_decay_the_teacher_is_the_student_and_the_student_is_left_alone():
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model.state_dict())
    average = moving_average(model, decay=0.0)
    for _ in range(2):
        average.update_parameters(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        torch.testing.assert_close(average.module.state_dict()[name], tensor)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_bounds_is_refused(decay):
    with pytest.raises(ConfigError, match=f"decay={decay} must be at least 0 and below 1"):
        moving_average(nn.Linear(1, 1), decay=decay)


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
