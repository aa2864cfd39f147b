import tempfile

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fedistill.compress.export import export_student
from fedistill.compress.gate import predict, session_of
from fedistill.compress.quantize import needs_reduced_range, quantize_file


@pytest.fixture(scope="module")
def source(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("quantize") / "float.onnx"
    export_student(case.student, path, schema=case.proxy.schema, classes=case.classes)
    return path


@pytest.fixture(scope="module", params=[True, False], ids=["7 bits", "8 bits"])
def quantized(request, case, source):
    path = source.with_name(f"int8-{request.param}.onnx")
    quantize_file(source, path, case.rows, reduce_range=request.param)
    return request.param, path


def test_reduced_range_keeps_answers_on_every_cpu(case, source, tmp_path):
    path = tmp_path / "int8.onnx"
    quantize_file(source, path, case.rows, reduce_range=True)
    before, after = (predict(session_of(file), case.rows) for file in (source, path))
    assert np.mean(before.argmax(axis=1) == after.argmax(axis=1)) > 0.98
    assert np.abs(before - after).mean() < 0.02


def test_weights_are_int8_of_the_stated_width_and_the_last_layer_is_float(case, quantized):
    reduced, path = quantized
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    int8 = [t for t in tensors.values() if t.dtype == np.int8 and t.ndim == 2]
    assert sorted(t.size for t in int8) == sorted(
        layer.weight.numel() for layer in case.student.linears[:-1]
    )
    assert max(np.abs(t.astype(int)).max() for t in int8) == (64 if reduced else 127)
    assert any(t.dtype == np.float32 and t.shape == (3, 12) for t in tensors.values())


def test_the_encoding_stays_in_float(case, quantized):
    graph = onnx.load(quantized[1]).graph
    kinds = [node.op_type for node in graph.node]
    encoded = kinds.index("Concat")
    assert {"IsNaN", "Where", "Gather", "Sub", "Mul"} <= set(kinds[:encoded])
    assert kinds.index("QuantizeLinear") > encoded
    starts = case.student.encoding.bin_start.numpy()
    tensors = [numpy_helper.to_array(t) for t in graph.initializer]
    assert any(t.shape == starts.shape and np.array_equal(t, starts) for t in tensors)


def test_metadata_survives(quantized):
    keys = {entry.key for entry in onnx.load(quantized[1]).metadata_props}
    assert {"columns", "classes", "fedistill"} <= keys


def test_quantizing_says_nothing_and_leaves_nothing_behind(
    case, source, tmp_path, monkeypatch, capfd, caplog
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    quantize_file(source, tmp_path / "int8.onnx", case.rows, reduce_range=True)
    assert list(scratch.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("flags", "reduced"),
    [
        ("flags\t\t: fpu avx2 fma", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("flags\t\t: fpu avx_vnni_int8", True),
        ("model name\t: avx_vnni", True),
        ("Features\t: fp asimd asimddp", True),
        ("", True),
    ],
)
def test_seven_bits_unless_the_cpu_shows_vnni(tmp_path, flags, reduced):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n")
    assert needs_reduced_range(cpuinfo) is reduced


def test_seven_bits_where_the_cpu_cannot_be_asked(tmp_path):
    assert needs_reduced_range(tmp_path / "missing")
