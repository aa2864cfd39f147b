"""What PyTorch's ONNX exporter leaves behind: remarks on the screen, traces in the file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx


def strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's traces: source paths of this machine, and most of the file's size."""
    graph = model.graph
    model.ClearField("doc_string")
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself, and a deprecation inside torch, off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)
