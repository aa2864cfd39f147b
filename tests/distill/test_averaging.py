"""The moving average of a model's weights: what it holds, and that the model is left alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fedistill.distill.averaging import Average
from fedistill.errors import ConfigError


def norms() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def moved(model: nn.Module) -> dict[str, Tensor]:
    """The state after a step that changes weights and statistics."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    model(torch.randn(8, 3))
    return copy.deepcopy(model.state_dict())


def test_it_is_the_exponential_average_of_weights_and_of_statistics() -> None:
    model = norms()
    average = Average(model, decay=0.9)
    states = []
    for _ in range(5):
        states.append(moved(model))
        average.update()
    with average.applied():
        found = copy.deepcopy(model.state_dict())
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        expected = states[0][name]
        for state in states[1:]:
            expected = 0.9 * expected + 0.1 * state[name]
        torch.testing.assert_close(found[name], expected)


def test_the_model_has_its_own_weights_again_after_an_answer() -> None:
    model = norms()
    average = Average(model, decay=0.9)
    moved(model)
    average.update()
    own = moved(model)
    average.update()
    with average.applied():
        assert not torch.equal(model.state_dict()["0.weight"], own["0.weight"])
    assert all(torch.equal(own[name], each) for name, each in model.state_dict().items())


def test_without_decay_it_is_the_model() -> None:
    model = norms()
    average = Average(model, decay=0.0)
    for _ in range(2):
        state = moved(model)
        average.update()
    average.write(average.values)
    assert all(torch.equal(state[name], each) for name, each in model.state_dict().items())


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_bounds_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=f"decay={decay} must be at least 0 and below 1"):
        Average(nn.Linear(1, 1), decay=decay)
