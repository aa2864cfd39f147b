import json

import numpy as np
import onnx
import onnxruntime
import pytest

from fedistill.compress.export import (
    describe,
    export_student,
    load_student,
    weights_to_bytes,
    write_manifest,
)
from fedistill.distill.students import predict_probabilities
from fedistill.errors import DataError


@pytest.fixture(scope="module")
def exported(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    export_student(case.student, path, schema=case.proxy.schema, classes=case.classes)
    return path


@pytest.fixture
def saved(case, tmp_path):
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(weights_to_bytes(case.student))
    description = describe(case.student, schema=case.proxy.schema, classes=case.classes)
    write_manifest(tmp_path / "manifest.json", description, [weights])
    return tmp_path


def run(path, rows):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"rows": rows})[0]


@pytest.mark.parametrize("batch", [1, 2, 3, 700])
def test_the_file_answers_as_the_student_does_for_any_batch(case, exported, batch):
    rows = case.rows[:batch]
    expected = predict_probabilities(case.student, rows)
    np.testing.assert_allclose(run(exported, rows), expected, atol=1e-5)


def test_the_file_bears_missing_infinite_and_huge_values(case, exported):
    rows = np.full((4, len(case.proxy.schema)), np.nan, dtype=np.float32)
    rows[1:] = np.float32([[np.inf], [-np.inf], [3e38]])
    answers = run(exported, rows)
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(answers, predict_probabilities(case.student, rows), atol=1e-5)


def test_the_file_has_one_float_input_and_names_columns_and_classes(case, exported):
    model = onnx.load(exported)
    (given,), (made,) = model.graph.input, model.graph.output
    assert (given.name, made.name) == ("rows", "probabilities")
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert given.type.tensor_type.shape.dim[1].dim_value == len(case.proxy.schema)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["columns"]) == [
        {"name": name, "kind": "number"} for name in case.proxy.columns
    ]
    assert json.loads(properties["classes"]) == list(case.classes)


def test_the_file_holds_no_trace_of_the_machine_that_made_it(exported):
    content = exported.read_bytes()
    assert b".py" not in content
    assert b"File " not in content


def test_export_says_nothing(case, tmp_path, capfd):
    export_student(
        case.student, tmp_path / "s.onnx", schema=case.proxy.schema, classes=case.classes
    )
    assert capfd.readouterr() == ("", "")


def test_a_saved_student_is_rebuilt_bit_by_bit(case, saved):
    loaded = load_student(saved)
    assert loaded.hidden == case.student.hidden
    np.testing.assert_array_equal(
        predict_probabilities(loaded, case.rows), predict_probabilities(case.student, case.rows)
    )


def test_changed_weights_are_refused(saved):
    path = saved / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="the manifest pins"):
        load_student(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {}}'])
def test_a_damaged_manifest_is_refused(saved, text):
    (saved / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="no student can be read here"):
        load_student(saved)


def test_a_manifest_of_another_format_is_refused(saved):
    path = saved / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(DataError, match="format=1 must be 2"):
        load_student(saved)


def test_a_missing_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load_student(tmp_path / "nowhere")
