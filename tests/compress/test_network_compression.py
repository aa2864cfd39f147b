"""Students of images, pruned, quantized, exported and rebuilt."""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits

from fedistill.compress import candidates as making
from fedistill.compress import compress, load_student, predict_file
from fedistill.compress import pipeline as compress_pipeline
from fedistill.compress.export import check_exportable, describe, export_student
from fedistill.compress.prune_heads import narrow_transformer
from fedistill.compress.prune_network import prune_network, why_not_pruned
from fedistill.compress.qat import train_quantized
from fedistill.compress.quantize import quantize_file
from fedistill.compress.settings import Settings
from fedistill.data import ProxySet, numbers
from fedistill.distill.image_trainer import ImageRecipe, distil_images
from fedistill.distill.network_students import NetworkStudent, make_student
from fedistill.distill.networks import folded, shape_like, with_folded
from fedistill.distill.students import predict_probabilities
from fedistill.errors import ConfigError
from fedistill.labels import EnsembleTarget

CLASSES = tuple("0123456789")
OWN = "tests.distill.test_network_students:small"
quickly = partial(prune_network, steps_between=5, last_steps=60)


@pytest.fixture(scope="module")
def digits() -> tuple[ProxySet, EnsembleTarget]:
    data = load_digits()
    rows = data.data[:500].astype(np.float32)
    logits = 4 * np.eye(10)[data.target[:500]]
    log_odds = logits[:, 1:] - logits[:, :1]
    proxy = ProxySet(schema=numbers(f"x{j}" for j in range(64)), rows=rows)
    return proxy, EnsembleTarget(log_odds=log_odds, std=np.zeros(log_odds.shape), num_sites=3)


def trained(name: str, digits: tuple[ProxySet, EnsembleTarget], epochs: int = 12) -> NetworkStudent:
    proxy, target = digits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = make_student(name, proxy, num_classes=10)
    assert isinstance(student, NetworkStudent)
    images = student.encoding(torch.tensor(proxy.rows))
    recipe = ImageRecipe(epochs=epochs, batch=64, ema_decay=0.9)
    labels = torch.from_numpy(target.probabilities)
    distil_images(student.body, images, labels, seed=0, recipe=recipe)
    return student.eval()


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_pruning_takes_its_share_of_channels_and_keeps_the_answers(name, digits) -> None:
    student = trained(name, digits)
    before = {key: each.clone() for key, each in student.state_dict().items()}
    done: list[tuple[int, int]] = []
    pruned = quickly(
        student,
        digits[0].rows,
        prune_ratio=0.5,
        seed=0,
        progress=lambda now, total: done.append((now, total)),
    )
    widths = [m.out_channels for m in student.modules() if isinstance(m, torch.nn.Conv2d)]
    narrow = [m.out_channels for m in pruned.modules() if isinstance(m, torch.nn.Conv2d)]
    assert narrow == [width // 2 for width in widths]
    assert pruned.num_parameters < 0.4 * student.num_parameters
    assert all(torch.equal(each, before[key]) for key, each in student.state_dict().items())
    says, said = (predict_probabilities(s, digits[0].rows).argmax(1) for s in (pruned, student))
    assert (says == said).mean() > 0.9
    assert done[-1][0] == done[-1][1] == len(done)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_all_candidates_are_made_and_the_files_answer_alike(
    name, digits, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(making, "prune_network", quickly)
    proxy, target = digits
    student = trained(name, digits)
    done = compress(
        student,
        proxy,
        target,
        classes=CLASSES,
        settings=Settings(prune_ratio=0.5, quantize="int8"),
        directory=tmp_path,
        seed=0,
    )
    by_stage = {stage.stage: stage for stage in done.stages}
    assert list(by_stage) == ["float", "pruned", "quantized", "pruned+quantized"]
    assert by_stage["quantized"].bytes < 0.6 * by_stage["float"].bytes
    assert by_stage["quantized"].agreement > 0.95
    np.testing.assert_allclose(
        predict_file(done.fp32, proxy.rows), predict_probabilities(student, proxy.rows), atol=1e-4
    )
    rebuilt = load_student(tmp_path)
    shipped = next(stage for stage in done.stages if stage.shipped)
    assert rebuilt.num_parameters == shipped.parameters
    says = predict_probabilities(rebuilt, proxy.rows).argmax(axis=1)
    assert (says == predict_file(done.shipped, proxy.rows).argmax(axis=1)).mean() > 0.95


def test_convolutions_are_integers_in_a_quantized_file(digits, tmp_path: Path) -> None:
    path = tmp_path / "cnn.onnx"
    student = trained("cnn", digits, epochs=1)
    export_student(student, path, schema=digits[0].schema, classes=CLASSES)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    quantized = tmp_path / "cnn.int8.onnx"
    quantize_file(path, quantized, digits[0].rows, reduce_range=True)
    graph = onnx.load(quantized).graph
    dequantized = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    types = {each.name: each.data_type for each in graph.initializer}
    kernels = [types[dequantized[n.input[1]]] for n in graph.node if n.op_type == "Conv"]
    assert len(kernels) == 7
    assert set(kernels) == {onnx.TensorProto.INT8}


def test_a_pruned_student_is_rebuilt_from_its_files(digits, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(making, "prune_network", quickly)
    monkeypatch.setattr(compress_pipeline, "judge", _ship("pruned"))
    proxy, target = digits
    student = trained("resnet", digits, epochs=2)
    done = compress(
        student,
        proxy,
        target,
        classes=CLASSES,
        settings=Settings(prune_ratio=0.3, quantize="none"),
        directory=tmp_path,
        seed=0,
    )
    rebuilt = load_student(tmp_path)
    assert rebuilt.num_parameters < student.num_parameters
    np.testing.assert_allclose(
        predict_probabilities(rebuilt, proxy.rows),
        predict_file(done.shipped, proxy.rows),
        atol=1e-4,
    )


def normed(num_inputs: int, num_classes: int) -> torch.nn.Module:
    layers = torch.nn.Linear(num_inputs, 12), torch.nn.LayerNorm(12), torch.nn.ReLU()
    return torch.nn.Sequential(*layers, torch.nn.Linear(12, num_classes))


class Folding(torch.nn.Module):
    """Its width is written into it."""

    def __init__(self, num_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.wide, self.out = torch.nn.Linear(num_inputs, 32), torch.nn.Linear(16, num_classes)

    def forward(self, rows):
        return self.out(self.wide(rows).reshape(-1, 2, 16).mean(dim=1))


class Unusual(torch.nn.Module):
    """It computes what ONNX has no operator for."""

    def __init__(self, num_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.out = torch.nn.Linear(num_inputs, num_classes)

    def forward(self, rows):
        return torch.special.i0e(self.out(rows))


def test_an_operator_that_onnx_has_not_is_named(digits, tmp_path: Path) -> None:
    student = make_student(f"{__name__}:Unusual", digits[0], num_classes=10)
    with pytest.raises(
        ConfigError, match=r"has the operator '\w+\.\w*i0e', which cannot be exported"
    ):
        check_exportable(student)


def test_heads_and_wide_layers_go_and_a_pruned_transformer_is_rebuilt(digits) -> None:
    student = trained("vit", digits, epochs=2)
    pruned = quickly(student, digits[0].rows, prune_ratio=0.5, seed=0)
    block, before = pruned.body.blocks[0], student.body.blocks[0]
    assert block.query.out_features == block.key.out_features == before.query.out_features // 2
    assert block.out.in_features == before.out.in_features // 2
    assert block.out.out_features == before.out.out_features
    assert block.wide[0].out_features == before.wide[0].out_features // 2
    rebuilt = make_student("vit", digits[0], num_classes=10)
    shape_like(rebuilt, pruned.state_dict())
    rebuilt.load_state_dict(pruned.state_dict())
    rows = digits[0].rows[:50]
    np.testing.assert_array_equal(
        predict_probabilities(rebuilt.eval(), rows), predict_probabilities(pruned, rows)
    )


def test_the_weakest_head_goes_first(digits) -> None:
    student = trained("vit", digits, epochs=1)
    block = student.body.blocks[1]
    with torch.no_grad():
        for part in (block.query, block.key, block.value):
            part.weight[16:32] = 0
        block.out.weight[:, 16:32] = 0
    pruned = copy.deepcopy(student)
    narrow_transformer(pruned.body, student.body, share=0.25, prune_by="group-l1")
    kept = torch.cat([block.query.weight[:16], block.query.weight[32:]])
    assert torch.equal(pruned.body.blocks[1].query.weight, kept)


def test_one_s_own_network_of_known_layers_is_pruned(digits) -> None:
    student = _own(digits[0])
    assert why_not_pruned(student) is None
    pruned = quickly(student, digits[0].rows, prune_ratio=0.5, seed=0)
    assert pruned.body.network[0].out_features == 4
    assert pruned.body.network[2].out_features == 10


def test_a_network_computes_the_same_from_its_folded_weights(digits) -> None:
    student = trained("resnet", digits, epochs=1)
    again = with_folded(student.body, folded(student.body).state_dict())
    images = student.encoding(torch.tensor(digits[0].rows[:20]))
    torch.testing.assert_close(again(images), student.body(images), atol=1e-4, rtol=1e-4)


def test_trained_rounding_of_convolutions_ends_in_weights_that_are_rebuilt(digits) -> None:
    student = trained("cnn", digits, epochs=4)
    rows = digits[0].rows
    qat = train_quantized(student, rows, teacher=student, reduce_range=True, seed=0, steps=20)
    assert qat.state_dict().keys() == student.state_dict().keys()
    says, said = (predict_probabilities(each, rows).argmax(axis=1) for each in (qat, student))
    assert (says == said).mean() > 0.9


def test_the_file_of_an_image_student_says_its_shape_and_the_manifest_its_pixels(
    digits, tmp_path: Path
) -> None:
    student = trained("cnn", digits, epochs=1)
    path = tmp_path / "cnn.onnx"
    export_student(student, path, schema=digits[0].schema, classes=CLASSES)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["columns"]) == {
        "pixels": {"channels": 1, "side": 8},
        "kind": "number",
    }
    described = describe(student, schema=digits[0].schema, classes=CLASSES)
    assert [column["name"] for column in described["columns"]] == list(digits[0].columns)
    np.testing.assert_allclose(
        predict_file(path, digits[0].rows),
        predict_probabilities(student, digits[0].rows),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("normed", "its LayerNorm '1' is no layer whose channels can go"),
        ("Folding", "without some of them it does not work (RuntimeError"),
    ],
)
def test_who_cannot_be_pruned_ships_otherwise_and_the_manifest_says_why(
    factory, why, digits, tmp_path: Path
) -> None:
    proxy, target = digits
    name = f"{__name__}:{factory}"
    student = make_student(name, proxy, num_classes=10).eval()
    done = compress(
        student,
        proxy,
        target,
        classes=CLASSES,
        settings=Settings(prune_ratio=0.5, quantize="int8"),
        directory=tmp_path,
        seed=0,
    )
    assert [stage.stage for stage in done.stages] == ["float", "quantized"]
    assert why in done.reason
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["student"] == name
    assert manifest["shipped"]["reason"] == done.reason
    np.testing.assert_allclose(
        predict_probabilities(load_student(tmp_path), proxy.rows),
        predict_file(done.fp32, proxy.rows),
        atol=1e-4,
    )


def _own(proxy: ProxySet) -> NetworkStudent:
    student = make_student(OWN, proxy, num_classes=10)
    assert isinstance(student, NetworkStudent)
    return student.eval()


def _ship(stage: str):
    """The gate, but for its choice."""
    from dataclasses import replace

    from fedistill.compress.gate import judge

    def judged(candidates, rows, target, bounds):
        verdict = judge(candidates, rows, target, bounds)
        index = [each.stage for each in verdict.stages].index(stage)
        return replace(verdict, shipped=index)

    return judged
