"""A student that a server sent to be scored: run only if it treats each row by itself.

The file comes from a server that may be malicious, and the proof of `evaluation` needs a student
whose answer to a row depends on that row alone. So a file is taken only if it is the one that the
question names by its hash, keeps no weights elsewhere on the site's disk, and is built from
operators of `OPERATORS`: none of them draws random numbers, remembers anything from one run to the
next, or loops. It is run on one row at a time, so rows of a batch cannot meet.

Nor may a row end the agent: a crash that follows from a row's values would tell the server that the
site holds such a row, without noise. So the sizes of all that is computed must follow from the file
alone, and stay small, and integers are not divided (the smallest one by -1 ends a process).
"""

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedistill.errors import PolicyRefusal
from fedistill.features.onnx_encoder import load_onnx
from fedistill.labels import Floats
from fedistill.mechanisms.evaluation import SCORE_BINS, Answer, num_curves

if TYPE_CHECKING:
    import onnx

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sqrt", "Exp", "Clip", "Cast")
_LOGIC = ("And", "Or", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN")
_SHAPES = ("Concat", "Flatten", "Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Where")
_LAYERS = ("Gemm", "MatMul", "Relu", "Sigmoid", "Tanh", "Softmax", "Constant", "Identity")
_IMAGES = ("Conv", "ReduceMean")
_PRECISION = ("QuantizeLinear", "DequantizeLinear")

OPERATORS = frozenset(_ARITHMETIC + _LOGIC + _SHAPES + _LAYERS + _IMAGES + _PRECISION)
"""ONNX operators of a student; our own use about half of them."""

NUMBERS_AT_MOST = 2**22
"""All that a student may compute for one row, in entries of tensors."""

_DIVIDING = frozenset(("Div", "ReduceMean"))
"""Of integers, some value or size could end the process."""

_WHOLE = frozenset(("INT8", "UINT8", "INT32", "INT64"))
_TYPES = _WHOLE | {"FLOAT", "DOUBLE", "BOOL"}


@dataclass(frozen=True, kw_only=True, eq=False)
class SentStudent:
    """A student that may be scored, and the bins in which its scores are counted.

    Attributes:
        answer: One row (1, num_columns) to (1, K) probabilities.
        edges: (num_curves, SCORE_BINS - 1), rising along each row.
    """

    answer: Answer
    edges: Floats


def student_to_bytes(onnx_file: bytes, edges: Floats) -> bytes:
    """A student's file and its bins as they are sent."""
    return edges.astype("<f8").tobytes() + onnx_file


def student_sha256(sent: bytes) -> str:
    """Hash by which a question names what `student_to_bytes` gave."""
    return hashlib.sha256(sent).hexdigest()


def read_student(sent: bytes, named: str, *, num_classes: int, num_columns: int) -> SentStudent:
    """The student in what a server sent. Reads no private row.

    Args:
        sent: Of `student_to_bytes`.
        named: The hash in the question.
        num_classes: Classes of the task.
        num_columns: Columns of a row.

    Raises:
        PolicyRefusal: It is not what the question names, or no student that may be scored.
    """
    if student_sha256(sent) != named:
        raise PolicyRefusal(
            f"broadcast_sha256={named[:12]!r} must be that of the student that was sent: send the "
            "file that the question names"
        )
    curves = num_curves(num_classes)
    size = 8 * curves * (SCORE_BINS - 1)
    if len(sent) < size:
        raise PolicyRefusal(
            f"student of {len(sent)} bytes must begin with {size} of its bins: send both"
        )
    edges = np.frombuffer(sent[:size], "<f8").reshape(curves, -1).astype(np.float64)
    if not np.isfinite(edges).all() or (np.diff(edges, axis=1) < 0).any():
        raise PolicyRefusal("student's bins must have finite edges that rise: send such ones")
    model = _read(sent[size:])
    _check_operators(model)
    _check_sizes(model, num_columns)
    answer = load_onnx(sent[size:], "student", num_columns)
    return SentStudent(answer=answer, edges=edges)


def _read(content: bytes) -> "onnx.ModelProto":
    import onnx

    try:
        return onnx.load_model_from_string(content)
    except Exception as error:
        raise PolicyRefusal(
            "student must be an ONNX file: send the one that was shipped"
        ) from error


def _check_operators(model: "onnx.ModelProto") -> None:
    """Refuse what might treat a row by others, or by chance.

    Raises:
        PolicyRefusal: Names the operators.
    """
    others = {
        f"{node.domain or 'ai.onnx'}.{node.op_type}"
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS
    }
    if others or model.functions:
        raise PolicyRefusal(
            f"student has {', '.join(sorted(others)) or 'functions of its own'} and may have "
            "operators alone that treat each row by itself: export it without"
        )


def _check_sizes(model: "onnx.ModelProto", num_columns: int) -> None:
    """Refuse what might compute more, or another thing, for one row than for another.

    Raises:
        PolicyRefusal: Names the node.
    """
    from onnx import TensorProto

    tensors = _tensors_of_one_row(model, num_columns)
    computed = 0
    for node in model.graph.node:
        for name in filter(None, node.output):
            tensor = tensors.get(name)
            sizes = [] if tensor is None else tensor.shape.dim
            if tensor is None or not tensor.HasField("shape") or not all(map(_is_known, sizes)):
                raise PolicyRefusal(
                    f"student's {node.op_type} {name!r} must have a size that follows from the "
                    "file alone, whatever the row: export it with fixed shapes"
                )
            kind = TensorProto.DataType.Name(tensor.elem_type)
            divides = node.op_type in _DIVIDING
            if kind not in _TYPES or (divides and kind in _WHOLE):
                raise PolicyRefusal(
                    f"student's {node.op_type} {name!r} gives {kind} and must give "
                    f"{'FLOAT or DOUBLE' if divides else ', '.join(sorted(_TYPES))}: export it so"
                )
            computed += math.prod(size.dim_value for size in sizes)
            if node.op_type == "Conv":
                # What onnxruntime copies for a convolution: each place's neighbourhood.
                places = math.prod(size.dim_value for size in sizes[2:])
                computed += places * math.prod(_weight_shape(model, tensors, node)[1:])
    if computed > NUMBERS_AT_MOST:
        raise PolicyRefusal(
            f"student computes {computed:,} numbers for a row and must compute at most "
            f"{NUMBERS_AT_MOST:,}: send a smaller one"
        )


def _tensors_of_one_row(model: "onnx.ModelProto", num_columns: int) -> dict[str, Any]:
    """Type and shape of all that is computed for one row, by name, as far as they can be known.

    Only the input's shape is taken from the file, with one row: others in it may be false.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for given in bare.graph.output:
        given.type.tensor_type.ClearField("shape")
    for taken in bare.graph.input:
        sizes = taken.type.tensor_type.shape.dim
        for place, size in enumerate(sizes):
            if place == 0 or (len(sizes) == 2 and not _is_known(size)):
                size.dim_value = num_columns if place else 1
    try:
        found = onnx.shape_inference.infer_shapes(
            bare, check_type=True, strict_mode=True, data_prop=True
        ).graph
    except Exception as error:
        raise PolicyRefusal(
            "student's tensors must have types and sizes that fit together: send a file that "
            "onnx.checker accepts"
        ) from error
    return {each.name: each.type.tensor_type for each in (*found.value_info, *found.output)}


def _weight_shape(model: "onnx.ModelProto", tensors: dict[str, Any], node: Any) -> list[int]:
    """Sizes of a convolution's weights: of the file, or computed from it.

    Raises:
        PolicyRefusal: They are neither, such as the row itself.
    """
    name = node.input[1]
    for stored in model.graph.initializer:
        if stored.name == name:
            return list(stored.dims)
    if name in tensors and all(map(_is_known, tensors[name].shape.dim)):
        return [size.dim_value for size in tensors[name].shape.dim]
    raise PolicyRefusal(
        f"student's Conv {node.output[0]!r} must have weights of a size that follows from the file "
        "alone: export it so"
    )


def _is_known(size: Any) -> bool:
    return bool(size.HasField("dim_value"))
