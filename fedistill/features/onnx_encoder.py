"""An ONNX file as a function of a row: one input for the row, the first output for its answer.

Single-threaded and sequential, so that one row's arithmetic is the same each time. The bytes are
all there is: a model that keeps weights in further files is refused, since no hash covers these.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.errors import PolicyRefusal

Rows = npt.NDArray[np.float32]

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def load_onnx(content: bytes, name: str, num_columns: int) -> Callable[[Rows], Any]:
    """A function of one row (1, num_columns) that gives the model's first output.

    An input of more dimensions, such as (n, 1, 28, 28), gets the row's numbers in that order; an
    integer input gets them as integers, and a row that holds anything else raises.

    Args:
        content: The file's bytes.
        name: What messages call the model, such as "encoder='resnet'".
        num_columns: Columns of a row.

    Raises:
        PolicyRefusal: It is no ONNX model, keeps weights elsewhere, or cannot take such rows.
    """
    import onnxruntime

    _check_whole(content, name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # a private row's failure is nobody's to read
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _no_model(name, error) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _TYPES:
        found = ", ".join(f"{one.name}: {one.type}" for one in inputs)
        raise PolicyRefusal(
            f"{name} takes {found or 'nothing'} and must take one tensor of float, "
            "double, int64 or int32: export it so, or wrap it in an import path"
        )
    shape = _row_shape(inputs[0].shape, name, num_columns)
    dtype, output = _TYPES[inputs[0].type], session.get_outputs()[0].name

    def encode(row: Rows) -> Any:
        if np.issubdtype(dtype, np.integer) and not (np.trunc(row) == row).all():
            raise ValueError("the encoder takes integers, and the row holds something else")
        return session.run([output], {inputs[0].name: row.astype(dtype).reshape(shape)})[0]

    return encode


def _row_shape(declared: list[Any], name: str, num_columns: int) -> tuple[int, ...]:
    """What one row is reshaped to: (1, num_columns), or what the model declares."""
    inner = [size if isinstance(size, int) and size > 0 else None for size in declared[1:]]
    if inner == [None]:
        return (1, num_columns)
    known = [size for size in inner if size is not None]
    if len(known) < len(inner) or not inner or int(np.prod(known)) != num_columns:
        raise PolicyRefusal(
            f"{name} takes an input of shape {tuple(declared)}, and its sizes after the "
            f"first must multiply to the {num_columns} columns of a row: use an encoder of these "
            "columns, or name those that it does not know in ignore-columns"
        )
    return (1, *known)


def _check_whole(content: bytes, name: str) -> None:
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise _no_model(name, error) from error
    graphs = [model.graph, *model.functions]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(graphs)):
        raise PolicyRefusal(
            f"{name} keeps weights in other files, and all must be in the one whose hash "
            "was agreed on: save it without external data"
        )


def _tensors(graphs: list[Any]) -> Iterator[Any]:
    """Every stored tensor of graphs and functions, those of inner graphs included."""
    while graphs:
        graph = graphs.pop()
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _no_model(name: str, error: Exception) -> PolicyRefusal:
    said = " ".join(str(error).split())[:300]
    return PolicyRefusal(
        f"{name} must be an ONNX model that onnxruntime can run ({said}): export it again"
    )
