"""A trained image encoder as the ONNX file that the run-config key `encoder` takes, and back."""

import hashlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

from fedistill.errors import DataError
from fedistill.features.joined_encoders import JoinedEncoders
from fedistill.features.onnx_traces import quiet, strip
from fedistill.features.self_supervised import ENCODER_STRIDES, ImageEncoder

OPSET = 20
LARGEST_BATCH = 65536


def write_encoder(encoder: ImageEncoder | JoinedEncoders, path: Path) -> str:
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


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredNetwork:
    """What `write_encoder` wrote: the network of `ImageEncoder`, BatchNorm within its weights.

    Attributes:
        mean: (channels,), what is taken from an image's pixels first.
        std: (channels,), what they are divided by then.
        convolutions: Weights (after, before, 3, 3) and biases (after,), first to last.
    """

    mean: Tensor
    std: Tensor
    convolutions: tuple[tuple[Tensor, Tensor], ...]


def read_network(content: bytes) -> StoredNetwork:
    """The network in an encoder's file; of several side by side, the first.

    Raises:
        DataError: It is no file that `write_encoder` wrote.
    """
    no_such = DataError(
        "the encoder must be a file that `fedistill encoder train` wrote: train one, or choose "
        "another student"
    )
    try:
        graph = onnx.load_model_from_string(content).graph
        stored = {
            each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in graph.initializer
        }
        layers = [node for node in graph.node if node.op_type == "Conv"]
        first = layers[0].input[1].removesuffix("body.0.weight")
        layers = [node for node in layers if node.input[1].startswith(f"{first}body.")]
        convolutions = tuple((stored[node.input[1]], stored[node.input[2]]) for node in layers)
        mean, std = stored[f"{first}mean"].flatten(), stored[f"{first}std"].flatten()
    # The file is the user's: whatever onnx says of it, or that a part is not there.
    except Exception as error:
        raise no_such from error
    widths = [len(bias) for _, bias in convolutions]
    pairs = itertools.pairwise([len(mean), *widths])
    shapes = [(after, before, 3, 3) for before, after in pairs]
    if len(widths) != len(ENCODER_STRIDES) or shapes != [tuple(w.shape) for w, _ in convolutions]:
        raise no_such
    return StoredNetwork(mean=mean, std=std, convolutions=convolutions)
