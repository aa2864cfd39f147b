from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fedistill.compress.export import export_student
from fedistill.compress.gate import NO_BOUNDS, Candidate, expected_auc, judge, reason_of
from fedistill.compress.quantize import quantize_file
from tests.compress.stages import STAGE


@pytest.fixture(scope="module")
def candidates(case, tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    float_file, int8_file = directory / "float.onnx", directory / "int8.onnx"
    export_student(case.student, float_file, schema=case.proxy.schema, classes=case.classes)
    quantize_file(float_file, int8_file, case.rows, reduce_range=True)
    size = case.student.num_parameters
    return [
        Candidate(stage="float", precision="float32", path=float_file, parameters=size),
        Candidate(stage="quantized", precision="int8", path=int8_file, parameters=size),
    ]


def broken(candidate: Candidate, name: str, value: float | None) -> Candidate:
    """The same file with its quantized weights turned around, or scales set to `value`."""
    model = onnx.load(candidate.path)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if value is None and array.dtype == np.int8 and array.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(np.flip(array).copy(), tensor.name))
        elif value is not None and tensor.name.endswith("_scale"):
            spoiled = np.full_like(array, value)
            tensor.CopyFrom(numpy_helper.from_array(spoiled, tensor.name))
    path = candidate.path.with_name(name)
    onnx.save(model, path)
    return replace(candidate, path=path)


def test_a_deliberately_broken_int8_file_is_rejected_and_the_reason_says_why(case, candidates):
    pair = [candidates[0], broken(candidates[1], "broken.onnx", None)]
    verdict = judge(pair, case.rows, case.target.probabilities)
    assert verdict.shipped == 0
    assert [stage.shipped for stage in verdict.stages] == [True, False]
    assert verdict.reason.startswith("Shipped the float student because no compressed file passes")
    agreement = verdict.stages[1].agreement
    assert f"the quantized file was rejected (agreement {agreement:.4f} is below 0.99" in (
        verdict.reason
    )
    assert "AUC loss" in verdict.reason


def test_a_file_that_answers_nan_scores_nothing(case, candidates):
    pair = [candidates[0], broken(candidates[1], "nan.onnx", np.nan)]
    verdict = judge(pair, case.rows, case.target.probabilities)
    assert verdict.shipped == 0
    assert verdict.stages[1].metric == 0


def test_a_file_that_is_not_smaller_is_rejected(case, candidates):
    twice = [candidates[0], replace(candidates[0], stage="pruned")]
    verdict = judge(twice, case.rows, case.target.probabilities)
    size = f"{candidates[0].path.stat().st_size:,}"
    assert verdict.shipped == 0
    assert f"the pruned file was rejected ({size} bytes are not fewer than {size})" in (
        verdict.reason
    )


def test_the_float_file_agrees_with_itself_and_all_numbers_are_there(case, candidates):
    stage = judge(candidates[:1], case.rows, case.target.probabilities).stages[0]
    assert stage.agreement == 1
    assert stage.bytes == candidates[0].path.stat().st_size
    assert 0.5 < stage.metric < 1
    assert 0 < stage.latency_ms_batch_1 < stage.latency_ms_batch_256


def test_the_reason_for_a_shipped_file_also_names_what_the_others_missed():
    pruned = replace(STAGE, stage="pruned", bytes=500, metric=0.799, agreement=0.995)
    int8 = replace(STAGE, stage="quantized", bytes=250, metric=0.7, agreement=0.95)
    misses = [(), (), ("agreement 0.9500 is below 0.99",)]
    assert reason_of([STAGE, pruned, int8], 1, misses, NO_BOUNDS, met=True) == (
        "Shipped the pruned file, 2.0 times smaller than the float student, as the smallest that "
        "passes the gate (agreement 0.9950, AUC change -0.0010); the quantized file was rejected "
        "(agreement 0.9500 is below 0.99)."
    )


def test_expected_auc_is_the_probability_that_a_drawn_positive_outranks_a_drawn_negative():
    random = np.random.default_rng(0)
    positive = random.random(40)
    score = np.round(random.random(40), 1)
    weight = pairs = 0.0
    for i in range(40):
        for j in range(40):
            mass = positive[i] * (1 - positive[j])
            pairs += mass
            weight += mass * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    scores, target = (np.stack([1 - p, p], axis=1) for p in (score, positive))
    assert expected_auc(scores, target) == pytest.approx(weight / pairs)


def test_expected_auc_averages_one_vs_rest_beyond_two_classes():
    random = np.random.default_rng(1)
    scores, target = random.dirichlet(np.ones(3), size=(2, 60))
    each = [
        expected_auc(
            np.stack([1 - scores[:, k], scores[:, k]], axis=1),
            np.stack([1 - target[:, k], target[:, k]], axis=1),
        )
        for k in range(3)
    ]
    assert expected_auc(scores, target) == pytest.approx(np.mean(each))


def test_a_hard_target_gives_the_ordinary_auc():
    target = np.float64([[1, 0], [0, 1], [1, 0], [0, 1]])
    scores = np.float64([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    assert expected_auc(scores, target) == 0.75


def test_a_class_that_the_target_never_gives_is_left_out():
    target = np.float64([[0.3, 0.7, 0], [0.8, 0.2, 0]])
    assert expected_auc(target, target) == pytest.approx(expected_auc(target[:, :2], target[:, :2]))
    assert expected_auc(np.float64([[1, 0]]), np.float64([[1, 0]])) == 0.5
