"""The only encodings of labels and of evaluations: a release to bytes and back.

The length depends on public sizes alone (rows of the proxy set, classes, names), never on values
(PRIVACY rule 4): every number is an entry of a fixed-width tensor, and nothing is compressed. The
container is safetensors, which holds no code.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedistill.errors import DataError
from fedistill.labels import EvaluationRelease, LabelQuestion, LabelRelease
from fedistill.privacy.grid import LABEL_SCALE

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_PARAMETER = "parameter."
_LARGEST_PARAMETER = 1e15


def encode_release(release: LabelRelease) -> bytes:
    """Bytes of a release; of nothing else.

    Raises:
        TypeError: The argument is not a `LabelRelease`, or its codes are not int16.
    """
    if type(release) is not LabelRelease or release.codes.dtype != np.int16:
        raise TypeError("only a LabelRelease with int16 codes has a wire encoding")
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "codes": np.ascontiguousarray(release.codes),
        "scale": np.array([release.scale]),
        "mechanism": np.frombuffer(release.mechanism.encode(), np.uint8),
        "proxy-sha256": np.frombuffer(bytes.fromhex(release.proxy_sha256), np.uint8),
    }
    for name, value in release.parameters.items():
        tensors[_PARAMETER + name] = np.array([value], np.float64)
    return bytes(save(tensors))


def decode_release(
    data: bytes,
    *,
    question: LabelQuestion,
    num_rows: int,
    event: "DpEvent",
    parameters: tuple[str, ...],
) -> LabelRelease:
    """The release in `data`, checked against the question it answers.

    Args:
        data: As `encode_release` made it, or whatever a malformed site sent.
        question: What was asked.
        num_rows: Rows of the set that was to be labelled.
        event: The planned cost, which sender and receiver compute from the question.
        parameters: Names of what the mechanism states besides the codes, each from 1 to 1e15.

    Raises:
        DataError: The bytes are malformed or answer another question; names field and bound.
    """
    try:
        tensors = load(data)
        codes, scale = tensors["codes"], float(tensors["scale"].item())
        mechanism = tensors["mechanism"].tobytes().decode("ascii")
        proxy_sha256 = tensors["proxy-sha256"].tobytes().hex()
        stated = {
            name.removeprefix(_PARAMETER): float(tensor.item())
            for name, tensor in tensors.items()
            if name.startswith(_PARAMETER)
        }
    except (SafetensorError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"malformed release: {type(error).__name__}: {error}") from error
    shape = (num_rows, question.num_classes - 1)
    if codes.dtype != np.int16 or codes.shape != shape:
        raise DataError(f"codes are {codes.dtype}{codes.shape}, must be int16{shape}")
    if mechanism != question.mechanism or proxy_sha256 != question.proxy_sha256:
        raise DataError(f"release of {mechanism!r} on {proxy_sha256[:12]} answers another question")
    if scale != LABEL_SCALE:
        raise DataError(f"scale={scale} must be {LABEL_SCALE}, the public grid of labels")
    if set(stated) != set(parameters):
        raise DataError(f"parameters {sorted(stated)} must be {sorted(parameters)}")
    for name, value in stated.items():
        if not 1 <= value <= _LARGEST_PARAMETER:
            raise DataError(f"{name}={value} must lie from 1 to {_LARGEST_PARAMETER:g}")
    return LabelRelease(
        codes=codes,
        scale=scale,
        mechanism=mechanism,
        parameters=stated,
        proxy_sha256=proxy_sha256,
        event=event,
    )


def encode_evaluation(release: EvaluationRelease) -> bytes:
    """Bytes of a site's noised tables, 8 for each count; of nothing else.

    Raises:
        TypeError: The argument is not an `EvaluationRelease`, or its counts are not int64.
    """
    if type(release) is not EvaluationRelease or release.counts.dtype != np.int64:
        raise TypeError("only an EvaluationRelease of int64 counts has a wire encoding")
    return release.counts.astype("<i8").tobytes()
