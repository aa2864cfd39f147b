"""A student that a server sent: only what treats each row by itself is run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedistill.compress import compress
from fedistill.compress.export import export_student
from fedistill.compress.quantize import quantize_file
from fedistill.compress.settings import Settings
from fedistill.data import numbers
from fedistill.distill.network_students import Scaled, make_student, network_student
from fedistill.errors import PolicyRefusal
from fedistill.features.images import ImageShape
from fedistill.labels import EnsembleTarget
from fedistill.mechanisms.sent_student import read_student, student_sha256, student_to_bytes
from tests import scored_students
from tests.mechanisms.toy import make_proxy, make_rows
from tests.scored_students import COLUMNS, even_edges, softmax_student


def read(sent: bytes, named: str | None = None):
    named = student_sha256(sent) if named is None else named
    return read_student(sent, named, num_classes=2, num_columns=COLUMNS)


def test_a_good_student_answers_one_row_with_probabilities() -> None:
    student = read(student_to_bytes(softmax_student(), even_edges()))
    answered = student.answer(make_rows(1).rows)
    assert answered.shape == (1, 2)
    assert answered.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(student.edges, even_edges())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (scored_students.with_weights_elsewhere, "keeps weights in other files"),
        (scored_students.with_chance, "has ai.onnx.RandomUniformLike"),
        (scored_students.of_another_domain, "has com.microsoft.FusedMatMul"),
        (scored_students.with_a_branch, "has ai.onnx.If"),
        (scored_students.with_a_function, "has own.Relu"),
        (lambda: b"", "student must be an ONNX model|takes nothing"),
        (lambda: b"not a model", "student must be an ONNX file"),
    ],
)
def test_what_may_treat_a_row_by_others_or_by_chance_is_refused(model, words: str) -> None:
    with pytest.raises(PolicyRefusal, match=words):
        read(student_to_bytes(model(), even_edges()))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (scored_students.with_divided_integers, "Div 'divided' gives INT64 and must give FLOAT"),
        (scored_students.with_sizes_of_a_row, "must have a size that follows from the file alone"),
        (scored_students.with_many_numbers, "computes 16,777,216 numbers for a row"),
        (scored_students.with_false_sizes, "computes 16,777,216 numbers for a row"),
        (scored_students.with_text, "Cast 'text' gives STRING and must give"),
        (scored_students.with_a_wide_convolution, "and must compute at most 4,194,304"),
        (scored_students.with_a_mean_of_integers, "ReduceMean 'mean' gives INT64 and must give"),
    ],
)
def test_what_might_end_the_agent_on_some_row_is_refused(model, words: str) -> None:
    """A crash that depends on a row is an answer without noise."""
    with pytest.raises(PolicyRefusal, match=words):
        read(student_to_bytes(model(), even_edges()))


@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_shipped_students_may_be_scored(tmp_path, quantize: str, num_classes: int) -> None:
    proxy = make_proxy(120)
    student = make_student("mlp", proxy, num_classes)
    target = EnsembleTarget(
        log_odds=np.zeros((120, num_classes - 1)), std=np.ones((120, num_classes - 1)), num_sites=3
    )
    compress(
        student,
        proxy,
        target,
        classes=tuple("abcd"[:num_classes]),
        settings=Settings(prune_ratio=0.0, quantize=quantize),
        directory=tmp_path,
        seed=0,
    )
    for name in ("student.onnx", "student.fp32.onnx"):
        sent = student_to_bytes((tmp_path / name).read_bytes(), even_edges(num_classes))
        read_student(
            sent, student_sha256(sent), num_classes=num_classes, num_columns=len(proxy.columns)
        )


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", ["cnn", "resnet", "encoder"])
def test_students_of_images_may_be_scored(tmp_path, name: str, quantized: bool) -> None:
    sent = student_to_bytes(image_student(name, tmp_path, quantized), even_edges())
    student = read_student(sent, student_sha256(sent), num_classes=2, num_columns=64)
    answered = student.answer(np.ones((1, 64), np.float32))
    assert answered.shape == (1, 2)
    assert answered.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_layers_of_a_transformer_are_refused(tmp_path) -> None:
    sent = student_to_bytes(image_student("vit", tmp_path, quantized=False), even_edges())
    with pytest.raises(PolicyRefusal, match="LayerNormalization"):
        read_student(sent, student_sha256(sent), num_classes=2, num_columns=64)


def image_student(name: str, folder: Path, quantized: bool) -> bytes:
    """An untrained student of 8 by 8 pixels as it ships."""
    scaled = Scaled(torch.zeros(64), torch.ones(64), ImageShape(channels=1, side=8))
    schema = numbers(f"x{j}" for j in range(64))
    path, smaller = folder / "student.onnx", folder / "student.int8.onnx"
    export_student(network_student(name, scaled, 2).eval(), path, schema=schema, classes=("a", "b"))
    if not quantized:
        return path.read_bytes()
    rows = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    quantize_file(path, smaller, rows, reduce_range=True)
    return smaller.read_bytes()


def test_another_file_than_the_question_names_is_refused() -> None:
    good = student_to_bytes(softmax_student(), even_edges())
    with pytest.raises(PolicyRefusal, match="must be that of the student that was sent"):
        read(good, student_sha256(good + b"\0"))
    with pytest.raises(PolicyRefusal, match="must be that of the student that was sent"):
        read(good, "")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 2.0])
def test_bins_that_do_not_rise_are_refused(wrong: float) -> None:
    edges = even_edges()
    edges[0, 3] = wrong
    with pytest.raises(PolicyRefusal, match="finite edges that rise"):
        read(student_to_bytes(softmax_student(), edges))


def test_a_message_too_short_for_its_bins_is_refused() -> None:
    with pytest.raises(PolicyRefusal, match="must begin with 88 of its bins"):
        read(b"short")


def test_a_model_of_other_columns_is_refused() -> None:
    """Were it run, every row would count as nothing, and the charge would be wasted."""
    sent = student_to_bytes(softmax_student(), even_edges())
    with pytest.raises(PolicyRefusal, match="student takes an input of shape"):
        read_student(sent, student_sha256(sent), num_classes=2, num_columns=COLUMNS + 1)
