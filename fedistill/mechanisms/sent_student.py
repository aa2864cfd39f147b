"""A student that a server sent to be scored: run only if it treats each row by itself.

The file comes from a server that may be malicious, and the proof of `evaluation` needs a student
whose answer to a row depends on that row alone. So a file is taken only if it is the one that the
question names by its hash, keeps no weights elsewhere on the site's disk, and is built from
operators of `OPERATORS`: none of them draws random numbers, remembers anything from one run to the
next, or loops. It is run on one row at a time, so rows of a batch cannot meet.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from fedistill.errors import PolicyRefusal
from fedistill.features.onnx_encoder import load_onnx
from fedistill.labels import Floats
from fedistill.mechanisms.evaluation import SCORE_BINS, Answer, num_curves

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sqrt", "Exp", "Clip", "Cast")
_LOGIC = ("And", "Or", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN")
_SHAPES = ("Concat", "Flatten", "Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Where")
_LAYERS = ("Gemm", "MatMul", "Relu", "Sigmoid", "Tanh", "Softmax", "Constant", "Identity")
_PRECISION = ("QuantizeLinear", "DequantizeLinear")

OPERATORS = frozenset(_ARITHMETIC + _LOGIC + _SHAPES + _LAYERS + _PRECISION)
"""ONNX operators of a student; our own use about half of them."""


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
    _check_operators(sent[size:])
    answer = load_onnx(sent[size:], "student", num_columns)
    return SentStudent(answer=answer, edges=edges)


def _check_operators(content: bytes) -> None:
    """Refuse what might treat a row by others, or by chance.

    Raises:
        PolicyRefusal: Names the operators.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise PolicyRefusal(
            "student must be an ONNX file: send the one that was shipped"
        ) from error
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
