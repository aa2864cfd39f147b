import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from fedistill.data import ProxySet, numbers
from fedistill.errors import PolicyRefusal
from fedistill.mechanisms.dp_sgd import DPSGD
from fedistill.mechanisms.private_networks import check_network, inputs_of, network_named
from tests.mechanisms.toy import COLUMNS, ask, make_proxy, make_rows


class CentredRows(nn.Module):
    """Takes the batch's mean off, so that rows mix."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answer = self.layer(rows)
        return answer - answer.mean(dim=0)


class HalfUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.used(rows)


class Pairs(nn.Module):
    """Takes no row alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) < 2:
            raise ValueError("more rows, please")
        return self.layer(rows)


def broken(inputs: int, classes: int) -> nn.Module:
    raise ValueError("no such width")


REFUSED = {
    "normed": (lambda i, k: nn.Sequential(nn.Linear(i, 8), nn.BatchNorm1d(8), nn.Linear(8, k)),
               "BatchNorm.*torch.nn.GroupNorm"),
    "centred": (lambda i, k: CentredRows(), "one row change another row's answer"),
    "idle": (lambda i, k: HalfUsed(), "every parameter take part"),
    "wide": (lambda i, k: nn.Linear(i, k + 1), r"\(4, 3\).*must be \(4, 2\)"),
    "narrow": (lambda i, k: nn.Linear(3, k), "cannot answer public rows of 4 inputs"),
    "pairs": (lambda i, k: Pairs(), "cannot answer public rows.*more rows, please"),
    "frozen": (lambda i, k: nn.Linear(i, k).requires_grad_(False), "no parameter to train"),
    "broken": (broken, "ValueError: no such width"),
    "no_module": (lambda i, k: "a text", "makes a str"),
}  # fmt: skip


@pytest.fixture
def module(monkeypatch) -> ModuleType:
    found = ModuleType("networks_of_mine")
    for name, (factory, _) in REFUSED.items():
        setattr(found, name, factory)
    monkeypatch.setitem(sys.modules, "networks_of_mine", found)
    return found


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_cannot_be_private_is_refused_with_the_fix(name: str) -> None:
    """At plan time, so before anything is charged."""
    proxy = make_proxy(50)
    asked = ask(proxy, "dp-sgd", teacher=f"networks_of_mine:{name}", sgd_steps=2)
    with pytest.raises(PolicyRefusal, match=f"(?s)networks_of_mine:{name}.*{REFUSED[name][1]}"):
        DPSGD().plan(asked, proxy, rows_at_least=20)


def test_a_module_without_that_factory_is_refused(module: ModuleType) -> None:
    with pytest.raises(PolicyRefusal, match="cannot be imported"):
        network_named(f"{module.__name__}:absent", 4, 2)


@pytest.mark.parametrize(("name", "inputs"), [("mlp", 30), ("", 30), ("cnn", 64), ("cnn", 784)])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_our_own_answer_uniform_at_first_and_pass_every_check(name, inputs, num_classes) -> None:
    network = network_named(name, inputs, num_classes)
    rows = np.random.default_rng(0).normal(size=(6, inputs)).astype(np.float32)
    check_network(name, network, rows, num_classes)
    np.testing.assert_array_equal(
        network(torch.from_numpy(rows)).detach(), np.zeros((6, num_classes))
    )
    assert all(each.grad is None for each in network.parameters())


@pytest.mark.parametrize("num_inputs", [4, 49, 63, 65])
def test_a_cnn_takes_square_images_of_at_least_8_by_8(num_inputs: int) -> None:
    with pytest.raises(PolicyRefusal, match=f"{num_inputs} columns are not"):
        network_named("cnn", num_inputs, 2)


def test_first_weights_are_public_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = network_named("mlp", 10, 2), network_named("mlp", 10, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_inputs_depend_on_the_row_and_on_public_rows_alone(name: str) -> None:
    proxy = make_proxy(100)
    prepare, rows = inputs_of(name, proxy), make_rows(60, seed=4).rows
    kept = np.arange(60) % 3 > 0
    np.testing.assert_array_equal(prepare(rows)[kept], prepare(rows[kept]))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_inputs_are_finite_and_bounded_whatever_a_row_holds(name: str) -> None:
    proxy = ProxySet(schema=numbers(COLUMNS), rows=make_proxy(100).rows)
    wild = np.array([[np.nan, np.inf, -np.inf, 1e38], [0, -1e38, np.nan, 3]], np.float32)
    inputs = inputs_of(name, proxy)(wild)
    assert inputs.dtype == np.float32
    assert np.isfinite(inputs).all()
    assert np.abs(inputs).max() <= 4.0
