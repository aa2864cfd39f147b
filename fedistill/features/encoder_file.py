"""A trained image encoder as the ONNX file that the run-config key `encoder` takes."""

import hashlib
import os
from pathlib import Path

import onnx
import torch

from fedistill.errors import DataError
from fedistill.features.onnx_traces import quiet, strip
from fedistill.features.self_supervised import ImageEncoder

OPSET = 20
LARGEST_BATCH = 65536


def write_encoder(encoder: ImageEncoder, path: Path) -> str:
    """Write the file, whole or not at all, and give its sha256.

    One input `images`, float32 (batch, channels, side, side); one output `embeddings`, float32
    (batch, dimensions), of unit norm. No other file is needed.

    Raises:
        DataError: The file cannot be written.
    """
    shape = encoder.shape
    # Two images: an example batch of one would be taken for a constant.
    example = torch.zeros(2, shape.channels, shape.side, shape.side)
    with quiet():
        program = torch.onnx.export(
            encoder.eval(),
            (example,),
            dynamo=True,
            optimize=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    strip(model)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    return hashlib.sha256(content).hexdigest()
