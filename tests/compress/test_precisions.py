"""Float16, dynamic int8, and which layers stay in float."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fedistill.compress.export import export_student
from fedistill.compress.gate import predict, session_of
from fedistill.compress.half import halve_file
from fedistill.compress.quantize import quantize_dynamically, quantize_file


@pytest.fixture(scope="module")
def whole(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("precisions") / "float.onnx"
    export_student(case.student, path, schema=case.proxy.schema, classes=case.classes)
    return path


def kinds_of_weights(path) -> dict[tuple[int, ...], str]:
    tensors = [numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
    return {each.shape: each.dtype.name for each in tensors if each.ndim == 2}


def test_layers_are_halved_and_the_encoding_is_not(case, whole, tmp_path) -> None:
    path = tmp_path / "half.onnx"
    halve_file(whole, path)
    shapes = {tuple(layer.weight.shape) for layer in case.student.linears}
    kinds = kinds_of_weights(path)
    assert {kinds[shape] for shape in shapes} == {"float16"}
    model = onnx.load(path)
    starts = case.student.encoding.bin_start.numpy()
    tensors = [numpy_helper.to_array(each) for each in model.graph.initializer]
    assert any(np.array_equal(each, starts) and each.dtype == np.float32 for each in tensors)
    assert {
        each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)
    } == {onnx.TensorProto.FLOAT}
    before, after = (predict(session_of(file), case.rows) for file in (whole, path))
    np.testing.assert_allclose(after, before, atol=0.002)


def test_halved_files_bear_what_no_float16_holds(case, whole, tmp_path) -> None:
    path = tmp_path / "half.onnx"
    halve_file(whole, path)
    rows = np.full((3, len(case.proxy.schema)), np.nan, dtype=np.float32)
    rows[1:] = np.float32([[1e30], [-np.inf]])
    before, after = (predict(session_of(file), rows) for file in (whole, path))
    np.testing.assert_allclose(after, before, atol=0.002)


def test_dynamic_files_range_activations_at_each_call(case, whole, tmp_path) -> None:
    path = tmp_path / "dynamic.onnx"
    quantize_dynamically(whole, path, reduce_range=True)
    assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
    before, after = (predict(session_of(file), case.rows) for file in (whole, path))
    assert np.mean(before.argmax(axis=1) == after.argmax(axis=1)) > 0.98


@pytest.mark.parametrize(("ends", "in_float"), [("none", 0), ("last", 1), ("both", 2)])
def test_the_ends_stay_in_float_as_asked(case, whole, tmp_path, ends, in_float) -> None:
    path = tmp_path / "int8.onnx"
    quantize_file(whole, path, case.rows, reduce_range=True, float_ends=ends)
    shapes = [tuple(layer.weight.shape) for layer in case.student.linears]
    kinds = kinds_of_weights(path)
    found = [kinds.get(shape) or kinds[shape[::-1]] for shape in shapes]
    assert found.count("float32") == in_float
    assert found.count("int8") == len(shapes) - in_float
    assert in_float < 2 or found[0] == "float32"
