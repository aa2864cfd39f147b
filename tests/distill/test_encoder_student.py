"""A student that begins as the run's encoder: the same features, then training and shipping."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import normalize

from fedistill.compress.export import describe, export_student, load_student, weights_to_bytes
from fedistill.data import ProxySet, numbers
from fedistill.data.encoder import Encoder
from fedistill.distill.encoder_student import student_from_encoder
from fedistill.distill.network_students import NetworkStudent, make_student
from fedistill.distill.students import predict_probabilities
from fedistill.distill.training import Learning, distil
from fedistill.errors import ConfigError, DataError
from fedistill.features.encoder_file import read_network, write_encoder
from fedistill.features.images import ImageShape
from fedistill.features.self_supervised import ImageEncoder, Recipe, pretrain
from tests.distill.test_training import ensemble_of

SHAPE = ImageShape(channels=1, side=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageEncoder, ProxySet]:
    """A narrow encoder of digits, trained a little, and the proxy set that it belongs to."""
    rows = load_digits().data[:300].astype(np.float32)
    encoder = pretrain(rows, seed=0, recipe=Recipe(epochs=2, batch=64, narrower=4))
    path = tmp_path_factory.mktemp("encoder") / "digits.onnx"
    write_encoder(encoder, path)
    proxy = ProxySet(
        schema=numbers(f"x{j}" for j in range(64)), rows=rows, encoder=Encoder.named(str(path))
    )
    return encoder, proxy


def features(student: NetworkStudent, rows: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        body = nn.Sequential(*list(student.body.children())[:-1]).eval()
        return normalize(body(student.encoding(torch.tensor(rows))), dim=1)


def test_it_begins_with_the_encoders_features(made: tuple[ImageEncoder, ProxySet]) -> None:
    encoder, proxy = made
    student = student_from_encoder(proxy, SHAPE, 10)
    with torch.no_grad():
        expected = encoder(torch.tensor(proxy.rows).reshape(-1, 1, 8, 8))
    torch.testing.assert_close(features(student, proxy.rows), expected, atol=1e-5, rtol=1e-4)


def test_its_batch_norms_know_the_public_images(made: tuple[ImageEncoder, ProxySet]) -> None:
    """In training mode, too, the features are the encoder's: the batch has the statistics kept."""
    _, proxy = made
    student = student_from_encoder(proxy, SHAPE, 10)
    with torch.no_grad():
        body = nn.Sequential(*list(student.body.children())[:-1]).train()
        while_training = normalize(body(student.encoding(torch.tensor(proxy.rows))), dim=1)
    torch.testing.assert_close(
        while_training,
        features(student_from_encoder(proxy, SHAPE, 10), proxy.rows),
        atol=1e-3,
        rtol=1e-2,
    )


def test_it_learns_ships_and_is_rebuilt_without_the_encoder(
    made: tuple[ImageEncoder, ProxySet], tmp_path: Path
) -> None:
    _, proxy = made
    ensemble = ensemble_of(proxy, 3)
    learning = Learning(student="encoder", epochs=120, augmentation="none", folds=0)
    student = distil(proxy, ensemble, learning, seed=0)
    said = predict_probabilities(student, proxy.rows)
    assert (said.argmax(axis=1) == ensemble.target.probabilities.argmax(axis=1)).mean() > 0.8
    classes = ("a", "b", "c")
    export_student(student, tmp_path / "student.onnx", schema=proxy.schema, classes=classes)
    import json

    from fedistill.compress.export import write_manifest

    (tmp_path / "student.safetensors").write_bytes(weights_to_bytes(student))
    write_manifest(
        tmp_path / "manifest.json",
        describe(student, schema=proxy.schema, classes=classes),
        [tmp_path / "student.safetensors"],
    )
    assert json.loads((tmp_path / "manifest.json").read_text())["student"] == "encoder"
    again = load_student(tmp_path)
    np.testing.assert_allclose(predict_probabilities(again, proxy.rows), said, atol=1e-6)


@pytest.mark.parametrize("encoder", [None, Encoder(import_path="tests.encoders:halves")])
def test_without_an_encoders_file_there_is_nothing_to_begin_as(
    made: tuple[ImageEncoder, ProxySet], encoder: Encoder | None
) -> None:
    proxy = dataclasses.replace(made[1], encoder=encoder)
    with pytest.raises(ConfigError, match="student='encoder' begins as the encoder"):
        make_student("encoder", proxy, 10)


def write_changed(file: Path, out: Path, change) -> Encoder:
    model = onnx.load(file)
    change(model.graph)
    onnx.save(model, out)
    named = Encoder.named(str(out))
    assert named is not None
    return named


def test_another_network_with_weights_of_the_same_shapes_is_refused(
    made: tuple[ImageEncoder, ProxySet], tmp_path: Path
) -> None:
    _, proxy = made
    assert proxy.encoder is not None

    def no_relu(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == "Relu":
                node.op_type = "Tanh"

    changed = write_changed(Path(proxy.encoder.path), tmp_path / "tanh.onnx", no_relu)
    with pytest.raises(ConfigError, match="another network"):
        make_student("encoder", dataclasses.replace(proxy, encoder=changed), 10)


@pytest.mark.parametrize("name", ["mean", "body.0.weight"])
def test_a_file_that_lacks_a_part_is_none_of_ours(
    made: tuple[ImageEncoder, ProxySet], tmp_path: Path, name: str
) -> None:
    _, proxy = made
    assert proxy.encoder is not None

    def renamed(graph: onnx.GraphProto) -> None:
        (found,) = [each for each in graph.initializer if each.name == name]
        found.name = "other"

    changed = write_changed(Path(proxy.encoder.path), tmp_path / "other.onnx", renamed)
    with pytest.raises(DataError, match="fedistill encoder train"):
        read_network(Path(changed.path).read_bytes())


def test_what_is_no_onnx_file_is_none_of_ours() -> None:
    with pytest.raises(DataError, match="fedistill encoder train"):
        read_network(b"no model")
