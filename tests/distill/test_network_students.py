"""Students by name: who is refused, what they see, and networks of one's own."""

import numpy as np
import pytest
import torch
from torch import nn

from fedistill.data import Column, ProxySet, code_rows, infer_schema, numbers
from fedistill.distill.network_students import make_student
from fedistill.distill.students import predict_log_odds, predict_probabilities
from fedistill.errors import ConfigError

HERE = "tests.distill.test_network_students"


def proxy_of(rows: np.ndarray) -> ProxySet:
    names = (f"x{j}" for j in range(rows.shape[1]))
    return ProxySet(schema=numbers(names), rows=rows.astype(np.float32))


@pytest.fixture(scope="module")
def images() -> ProxySet:
    return proxy_of(np.random.default_rng(0).uniform(0, 255, size=(40, 64)))


def small(num_inputs: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(num_inputs, 8), nn.ReLU(), nn.Linear(8, num_classes))


def of_eight_columns(num_inputs: int, num_classes: int) -> nn.Module:
    return nn.Linear(8, num_classes)


def of_two_classes(num_inputs: int, num_classes: int) -> nn.Module:
    return nn.Linear(num_inputs, 2)


def no_network(num_inputs: int, num_classes: int) -> int:
    return num_inputs


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit", f"{HERE}:small"])
def test_a_student_answers_raw_rows_whatever_they_hold(images: ProxySet, name: str) -> None:
    student = make_student(name, images, num_classes=3).eval()
    rows = images.rows.copy()
    rows[0], rows[1, 5], rows[2] = np.nan, np.inf, -np.inf
    assert (student.name, student.num_columns, student.num_classes) == (name, 64, 3)
    assert predict_log_odds(student, rows).shape == (40, 2)
    answers = predict_probabilities(student, rows)
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_pixels_are_scaled_by_their_channel_and_columns_each_by_itself() -> None:
    random = np.random.default_rng(0)
    dark, light = random.normal(10, 2, (50, 64)), random.normal(200, 30, (50, 128))
    proxy = proxy_of(np.concatenate([dark, light], axis=1))
    pixels = make_student("cnn", proxy, num_classes=2).encoding(torch.tensor(proxy.rows))
    assert pixels.shape == (50, 3, 8, 8)
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.zeros(3), atol=0.05, rtol=0)
    assert float(pixels[:, 1:].std()) == pytest.approx(1, abs=0.05)
    own = make_student(f"{HERE}:small", proxy, num_classes=2).encoding(torch.tensor(proxy.rows))
    assert own.shape == (50, 192)
    torch.testing.assert_close(own.mean(dim=0), torch.zeros(192), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit"])
def test_students_of_images_are_refused_tables(name: str) -> None:
    table = proxy_of(np.random.default_rng(0).normal(size=(30, 6)))
    with pytest.raises(ConfigError, match=f"student='{name}' learns square images .*student='mlp'"):
        make_student(name, table, num_classes=2)


def test_students_of_images_are_refused_texts() -> None:
    columns = {f"x{j:02}": Column.of(np.arange(20.0) + j) for j in range(63)}
    columns["shade"] = Column.of(np.array(["dark", "light"] * 10))
    schema = infer_schema(columns, np.arange(20))
    rows, _ = code_rows(columns, schema, np.arange(20))
    with pytest.raises(ConfigError, match="column 'shade' holds texts"):
        make_student("cnn", ProxySet(schema=schema, rows=rows), num_classes=2)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("of_eight_columns", r"must take \(batch, 64\) float32"),
        ("of_two_classes", r"gives shape \(8, 2\) and must give 3 finite logits"),
        ("no_network", "makes a int, which must be a torch.nn.Module"),
        ("nothing", "must make a network .*AttributeError"),
    ],
)
def test_networks_of_ones_own_that_do_not_fit_are_refused(
    images: ProxySet, factory: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_student(f"{HERE}:{factory}", images, num_classes=3)
