import hashlib
import json
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fedistill.compress import candidates, compress, gate, load_student
from fedistill.compress.gate import expected_auc, predict, session_of
from fedistill.compress.settings import Bounds, Settings
from fedistill.distill.students import predict_probabilities

FILES = {"student.onnx", "student.fp32.onnx", "student.safetensors", "manifest.json"}


@pytest.fixture(scope="module")
def both(case, tmp_path_factory):
    directory = tmp_path_factory.mktemp("both") / "new" / "run"
    seen = []
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.25, quantize="int8"),
        directory=directory,
        seed=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1] == len(seen)
    return directory, made


def test_four_files_are_left_and_nothing_else(both):
    directory, made = both
    assert {path.name for path in directory.iterdir()} == FILES
    assert made.shipped == directory / "student.onnx"
    assert made.fp32 == directory / "student.fp32.onnx"


def test_all_four_candidates_are_measured_and_one_is_shipped(both):
    _, made = both
    assert [(stage.stage, stage.precision) for stage in made.stages] == [
        ("float", "float32"),
        ("pruned", "float32"),
        ("quantized", "int8"),
        ("pruned+quantized", "int8"),
    ]
    (shipped,) = [stage for stage in made.stages if stage.shipped]
    assert shipped.bytes == made.shipped.stat().st_size
    assert made.stages[0].bytes == made.fp32.stat().st_size
    assert shipped.stage in made.reason
    assert json.loads(json.dumps(asdict(shipped)))["stage"] == shipped.stage


def test_the_shipped_file_is_the_one_that_was_measured(case, both):
    _, made = both
    (shipped,) = [stage for stage in made.stages if stage.shipped]
    answers = predict(session_of(made.shipped), case.rows)
    assert expected_auc(answers, case.target.probabilities) == pytest.approx(shipped.metric)
    passing = [
        stage
        for stage in made.stages
        if stage.agreement >= 0.99 and made.stages[0].metric - stage.metric <= 0.002
    ]
    assert shipped.bytes == min(stage.bytes for stage in passing)


def test_the_manifest_pins_the_files_and_names_widths_and_range(case, both):
    directory, made = both
    manifest = json.loads((directory / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = (directory / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    assert [column["name"] for column in manifest["columns"]] == list(case.proxy.columns)
    assert manifest["classes"] == list(case.classes)
    assert manifest["shipped"]["reason"] == made.reason
    assert manifest["shipped"]["precision"] == "int8"
    assert isinstance(manifest["shipped"]["quantization"]["reduce_range"], bool)


def test_the_weights_of_the_shipped_file_are_reloaded_at_their_pruned_widths(case, tmp_path):
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.05, quantize="none"),
        directory=tmp_path,
        seed=0,
    )
    assert [stage.stage for stage in made.stages] == ["float", "pruned"]
    assert made.stages[1].shipped
    loaded = load_student(tmp_path)
    assert loaded.hidden == (19, 11)
    np.testing.assert_allclose(
        predict(session_of(made.shipped), case.rows),
        predict_probabilities(loaded, case.rows),
        atol=1e-5,
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["shipped"]["quantization"] is None


def test_no_pruning_and_no_quantization_ship_the_float_student(case, tmp_path):
    (tmp_path / "student.onnx").write_bytes(b"of an earlier run")
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.0, quantize="none"),
        directory=tmp_path,
        seed=0,
    )
    assert made.shipped.read_bytes() == made.fp32.read_bytes()
    assert made.reason == "Shipped the float student because no compressed file was made."


def test_the_manifest_says_privacy_settings_and_what_was_measured(case, tmp_path):
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.0, quantize="fp16"),
        directory=tmp_path,
        seed=0,
        privacy={"epsilon": 1.0, "delta": 1e-5},
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["privacy"] == {"epsilon": 1.0, "delta": 1e-5}
    assert manifest["compression"]["quantize"] == "fp16"
    assert manifest["onnx_opset"] == 20
    assert manifest["hidden"] == [20, 12]
    (shipped,) = [asdict(stage) for stage in made.stages if stage.shipped]
    measured = {key: value for key, value in shipped.items() if key != "shipped"}
    assert manifest["shipped"] | measured == manifest["shipped"]
    assert manifest["shipped"]["precision"] == "float16"


def test_a_search_under_a_bound_ships_what_meets_it_and_leaves_the_front(case, tmp_path):
    settings = Settings(quantize="none", grid=(0.2, 0.5), bounds=Bounds(max_bytes=1))
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=settings,
        directory=tmp_path,
        seed=0,
    )
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"pareto.json"}
    assert [stage.stage for stage in made.stages] == ["float", "pruned 20%", "pruned 50%"]
    assert not made.met
    assert made.reason.startswith("No file that passes the gate meets max-bytes=1: shipped the ")
    points = json.loads((tmp_path / "pareto.json").read_text())["points"]
    good = [point["bytes"] for point in points if not point["misses"]]
    assert made.shipped.stat().st_size == min(good)
    pinned = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert set(pinned) == FILES - {"manifest.json"} | {"pareto.json"}


def test_what_cannot_be_quantized_is_named_and_nothing_is_lost(case, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("an operator is not known")

    monkeypatch.setattr(candidates, "quantize_file", fail)
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.0),
        directory=tmp_path,
        seed=0,
    )
    assert made.shipped.read_bytes() == made.fp32.read_bytes()
    assert made.reason == (
        "Shipped the float student because no compressed file was made. No quantized file was made "
        "(ValueError: an operator is not known)."
    )


def test_no_int8_file_is_made_for_a_cpu_that_cannot_measure_it(case, tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "needs_reduced_range", lambda: True)
    made = compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.0, target_cpu="vnni"),
        directory=tmp_path,
        seed=0,
    )
    assert [stage.stage for stage in made.stages] == ["float"]
    assert "target-cpu='vnni' needs 8-bit weights" in made.reason


@pytest.mark.parametrize(("cpu", "bits"), [("any", 7), ("here", 8)])
def test_weights_keep_to_seven_bits_for_any_cpu(case, tmp_path, monkeypatch, cpu, bits):
    monkeypatch.setattr(candidates, "needs_reduced_range", lambda: False)
    # On so small a student 7 bits may miss the gate.
    monkeypatch.setattr(gate, "LEAST_AGREEMENT", 0.9)
    monkeypatch.setattr(gate, "MOST_METRIC_LOSS", 0.1)
    compress(
        case.student,
        case.proxy,
        case.target,
        classes=case.classes,
        settings=Settings(prune_ratio=0.0, target_cpu=cpu),
        directory=tmp_path,
        seed=0,
    )
    tensors = [
        numpy_helper.to_array(t) for t in onnx.load(tmp_path / "student.onnx").graph.initializer
    ]
    weights = [tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim == 2]
    assert max(np.abs(each.astype(int)).max() for each in weights) == (64 if bits == 7 else 127)
