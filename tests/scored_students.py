"""Students for tests of their scoring: small ONNX graphs, good and bad, and how they are asked."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedistill.data import ProxySet
from fedistill.labels import EVALUATION, LabelQuestion
from fedistill.mechanisms.evaluation import SCORE_BINS, num_curves
from fedistill.mechanisms.sent_student import student_sha256, student_to_bytes

COLUMNS = 4


def graph(nodes: list, constants: dict[str, np.ndarray], *, functions: tuple = ()) -> bytes:
    """A model of `rows` (n, COLUMNS) float32 to `out`."""
    made = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    model = helper.make_model(made, opset_imports=opsets, functions=functions, ir_version=9)
    return model.SerializeToString()


def softmax_student(num_classes: int = 2, *, axis: int = 1) -> bytes:
    """Softmax of a fixed linear map; along axis 0 the rows of a batch meet."""
    weights = np.random.default_rng(3).normal(size=(COLUMNS, num_classes)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["out"], axis=axis),
    ]
    return graph(nodes, {"weights": weights})


def even_edges(num_classes: int = 2) -> np.ndarray:
    """Bins of equal width, one of whose edges is 1/2."""
    return np.tile(np.arange(1, SCORE_BINS) / SCORE_BINS, (num_curves(num_classes), 1))


def sent(num_classes: int = 2) -> bytes:
    """A good student as it is sent."""
    return student_to_bytes(softmax_student(num_classes), even_edges(num_classes))


def evaluation_of(proxy: ProxySet, student: bytes, **changes: object) -> LabelQuestion:
    """The question how `student` does."""
    asked: dict[str, object] = {
        "mechanism": EVALUATION,
        "epsilon": 0.5,
        "delta": 1e-5,
        "num_classes": 2,
        "proxy_sha256": proxy.sha256,
        "broadcast_sha256": student_sha256(student),
        "holdout_fraction": 0.3,
    }
    return LabelQuestion(**(asked | changes))  # type: ignore[arg-type]


def with_weights_elsewhere() -> bytes:
    """A student that reads its weights from another file of whoever runs it."""
    model = onnx.load_model_from_string(softmax_student())
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "bank_a.key"), ("offset", "0"), ("length", "32")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def with_chance() -> bytes:
    """Draws its answers, from a generator that goes on from row to row."""
    node = helper.make_node("RandomUniformLike", ["rows"], ["out"], seed=1.0)
    return graph([node], {})


def of_another_domain() -> bytes:
    """An operator that only this machine's onnxruntime may have."""
    node = helper.make_node("FusedMatMul", ["rows", "weights"], ["out"], domain="com.microsoft")
    return graph([node], {"weights": np.ones((COLUMNS, 2), np.float32)})


def with_a_branch() -> bytes:
    """An `If`, in whose branches anything might hide."""
    branches = [
        helper.make_graph(
            [helper.make_node("Identity", ["rows"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("yes", "no")
    ]
    node = helper.make_node(
        "If", ["sure"], ["out"], then_branch=branches[0], else_branch=branches[1]
    )
    return graph([node], {"sure": np.array(True)})


def with_a_function() -> bytes:
    """An operator of its own making."""
    function = helper.make_function(
        "own",
        "Relu",
        ["x"],
        ["y"],
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_opsetid("", 20)],
    )
    node = helper.make_node("Relu", ["rows"], ["out"], domain="own")
    return graph([node], {}, functions=(function,))


def _ends(*nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    return graph(list(nodes), constants)


def with_divided_integers() -> bytes:
    """Ends the process that runs it on a row of -1."""
    return _ends(
        helper.make_node("Cast", ["rows"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Div", ["smallest", "whole"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["out"], to=TensorProto.FLOAT),
        smallest=np.array([[-(2**63)]], np.int64),
    )


def with_sizes_of_a_row() -> bytes:
    """As much memory as the square of the file's weights, on rows that begin with 1024, 1."""
    return _ends(
        helper.make_node("Cast", ["rows"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Gather", ["whole", "two"], ["pair"], axis=1),
        helper.make_node("Squeeze", ["pair", "zero"], ["sizes"]),
        helper.make_node("Reshape", ["weights", "sizes"], ["one"]),
        helper.make_node("Add", ["one", "weights"], ["out"]),
        two=np.array([0, 1], np.int64),
        zero=np.array([0], np.int64),
        weights=np.ones((1, 1024), np.float32),
    )


def with_many_numbers() -> bytes:
    """An outer sum of two long vectors."""
    long = np.ones((1, 4096), np.float32)
    return _ends(helper.make_node("Add", ["long", "column"], ["out"]), long=long, column=long.T)


def with_text() -> bytes:
    """Numbers as text, whose length is theirs."""
    return _ends(
        helper.make_node("Cast", ["rows"], ["text"], to=TensorProto.STRING),
        helper.make_node("Cast", ["text"], ["out"], to=TensorProto.FLOAT),
    )


def with_false_sizes() -> bytes:
    """Says that an outer sum is one number."""
    model = onnx.load_model_from_string(with_many_numbers())
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1]))
    return model.SerializeToString()


def with_a_wide_convolution() -> bytes:
    """Few numbers come out, and onnxruntime copies the whole image for each of them."""
    side, kernel = 256, 129
    return _ends(
        helper.make_node("Reshape", ["flat", "shape"], ["image"]),
        helper.make_node("Conv", ["image", "weights"], ["out"]),
        flat=np.ones((1, side**2), np.float32),
        shape=np.array([1, 1, side, side], np.int64),
        weights=np.ones((1, 1, kernel, kernel), np.float32),
    )


def with_a_mean_of_integers() -> bytes:
    """Divides integers by how many there are."""
    return _ends(
        helper.make_node("Cast", ["rows"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMean", ["whole"], ["mean"]),
        helper.make_node("Cast", ["mean"], ["out"], to=TensorProto.FLOAT),
    )
