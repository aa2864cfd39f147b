"""Training behind the rounding."""

import importlib.util

import numpy as np
import pytest
import torch

from fedistill.compress import compress, load_student
from fedistill.compress.export import export_student
from fedistill.compress.gate import predict, session_of
from fedistill.compress.qat import _prepared, check_installed, train_quantized
from fedistill.compress.quantize import quantize_file
from fedistill.compress.settings import Settings
from fedistill.distill.students import predict_probabilities
from fedistill.errors import ConfigError

TRAIN = {"float_ends": "none", "seed": 0, "steps": 300}


def agreement(student, case, path) -> float:
    export_student(student, path, schema=case.proxy.schema, classes=case.classes)
    rounded = path.with_suffix(".int8.onnx")
    quantize_file(path, rounded, case.rows, reduce_range=True, float_ends="none")
    says = predict(session_of(rounded), case.rows).argmax(axis=1)
    return float(np.mean(says == predict_probabilities(case.student, case.rows).argmax(axis=1)))


def test_its_rounded_file_answers_like_the_teacher_and_the_teacher_is_left(case, tmp_path) -> None:
    before = {name: tensor.clone() for name, tensor in case.student.state_dict().items()}
    trained = train_quantized(
        case.student, case.rows, teacher=case.student, reduce_range=True, **TRAIN
    )
    for name, tensor in case.student.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not torch.equal(trained.linears[0].weight, before["body.0.weight"])
    assert agreement(trained, case, tmp_path / "trained.onnx") > 0.97


@pytest.mark.parametrize(("reduce_range", "levels"), [(True, 129), (False, 255)])
def test_weights_are_rounded_to_the_levels_that_the_file_has(case, reduce_range, levels) -> None:
    """Each channel of what the graph multiplies by takes few values, as many as its bits allow."""
    codes = case.student.encoding(torch.tensor(case.rows[:64]))
    graph = _prepared(case.student.body, codes, reduce_range, "none")
    with torch.no_grad():
        answers = graph(codes)
        plain = case.student.body(codes)
    assert 0 < (answers - plain).abs().max() < 0.5
    bounds = {
        (
            int(module.activation_post_process.quant_min),
            int(module.activation_post_process.quant_max),
        )
        for module in graph.modules()
        if type(module).__name__ == "FusedMovingAvgObsFakeQuantize"
    }
    assert bounds == {(0, 255), (-(levels // 2), levels // 2)}


def test_a_run_ships_it_and_it_is_rebuilt_from_its_files(case, tmp_path) -> None:
    done = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.0, quantize="int8-qat"),
        directory=tmp_path,
        seed=0,
    )
    assert [(stage.stage, stage.precision) for stage in done.stages] == [
        ("float", "float32"),
        ("qat", "int8"),
    ]
    loaded = load_student(tmp_path)
    answers = predict_probabilities(loaded, case.rows)
    np.testing.assert_allclose(answers, predict(session_of(done.shipped), case.rows), atol=0.1)


def test_without_torchao_the_way_out_is_named(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fedistill\[qat\]', or set quantize="):
        check_installed()
