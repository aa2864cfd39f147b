"""Encoders for tests: small ONNX graphs and files, and functions that import paths name."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from fedistill.data import ProxySet, numbers
from fedistill.data.encoder import Encoder
from fedistill.features.onnx_traces import quiet


def write_digits(path: Path) -> Path:
    """The 8x8 digits of scikit-learn as npz, 64 pixels a row."""
    digits = load_digits()
    names = np.array([f"pixel_{j}" for j in range(64)])
    np.savez(path, X=digits.data.astype(np.float32), y=digits.target, features=names)
    return path


def export_cnn(path: Path) -> Path:
    """A small PyTorch network of 8x8 images, exported with the input (1, 1, 8, 8)."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(16, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(1),
    ).eval()
    image = torch.zeros(1, 1, 8, 8)
    with quiet():
        torch.onnx.export(network, (image,), path, dynamo=True, external_data=False, verbose=False)
    return path


def write_tokens_encoder(path: Path, *, vocabulary: int = 50, dimensions: int = 8) -> Path:
    """Token ids (n, length) int64 to the mean of their vectors."""
    vectors = np.random.default_rng(0).normal(size=(vocabulary, dimensions)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["vectors", "ids"], ["each"], axis=0),
        helper.make_node("ReduceMean", ["each", "axes"], ["mean"], keepdims=0),
    ]
    constants = {"vectors": vectors, "axes": np.array([1])}
    return _save(path, nodes, constants, ("ids", TensorProto.INT64, ["n", "length"]), 2)


def write_linear(path: Path, num_columns: int, dimensions: int = 6) -> Path:
    """Rows (n, num_columns) float32 times a fixed matrix, through tanh."""
    matrix = np.random.default_rng(1).normal(size=(num_columns, dimensions)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["rows", "matrix"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["out"]),
    ]
    shape = ("rows", TensorProto.FLOAT, ["n", num_columns])
    return _save(path, nodes, {"matrix": matrix}, shape, 2)


def write_varying(path: Path) -> Path:
    """Gives as many numbers as a row has non-zero cells."""
    nodes = [
        helper.make_node("NonZero", ["rows"], ["places"]),
        helper.make_node("Slice", ["places", "one", "two", "zero"], ["columns"]),
        helper.make_node("Cast", ["columns"], ["out"], to=TensorProto.FLOAT),
    ]
    constants = {name: np.array([value]) for value, name in enumerate(("zero", "one", "two"))}
    return _save(path, nodes, constants, ("rows", TensorProto.FLOAT, ["n", "columns"]), 2)


def _save(path: Path, nodes: list, constants: dict, given: tuple, rank: int) -> Path:
    name, kind, shape = given
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, kind, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def proxy_with(encoder: str | Path, rows: np.ndarray) -> ProxySet:
    """Public rows that this encoder sees."""
    schema = numbers(f"x{j}" for j in range(rows.shape[1]))
    return ProxySet(schema=schema, rows=rows, encoder=Encoder.named(str(encoder)))


def pooled():
    """2x2 means of 8x8 images; fails on a dark image, and has no answer for a bright one."""

    def encode(rows):
        if rows.max() < 0:
            raise RuntimeError("too dark")
        if rows.max() > 1000:
            return np.zeros((1, 3))
        return rows.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(len(rows), -1)

    return encode


def products():
    """The product of neighbouring columns, which no column tells by itself; none for a huge row."""

    def encode(rows):
        if np.abs(rows).max() > 1000:
            raise RuntimeError("too bright")
        return np.hstack([rows[:, :-1] * rows[:, 1:], rows[:, :1] ** 2])

    return encode


def of_1001_numbers():
    return lambda rows: np.resize(rows, (1, 1001))


def beyond_float32():
    return lambda rows: np.hstack([rows.astype(np.float64) * 1e100, rows])


def as_they_are():
    return lambda rows: rows


def of_changing_size():
    return lambda rows: rows[:, : 1 + int(abs(rows[0, 0]) * 1000) % 3]


def not_a_number():
    return lambda rows: np.log(np.minimum(rows, -1))


def without_batch():
    return lambda rows: rows[0]


def counting():
    calls = []

    def encode(rows):
        calls.append(1)
        return rows + len(calls)

    return encode


def always_the_same():
    return lambda rows: np.ones((1, 4))


def failing():
    raise OSError("no weights here")


def nothing():
    return None


def letters():
    """How often a text has each of five letters."""
    return lambda texts: np.array([[text.count(letter) for letter in "aeiou"] for text in texts])


def one_text():
    """The length of a text; refuses a text that stands beside another."""

    def encode(texts):
        if len(texts) != 1:
            raise ValueError("one text at a time")
        return np.array([[len(texts[0]), 1.0]])

    return encode


def as_many_as_letters():
    return lambda texts: np.ones((1, len(texts[0])))


def infinite():
    return lambda texts: np.full((1, 3), np.inf)


def mute():
    def encode(texts):
        raise RuntimeError("I cannot read this")

    return encode


def without_list():
    return lambda texts: np.ones(3)
