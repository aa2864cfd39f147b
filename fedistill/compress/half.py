"""Exported students in float16, for GPUs: half the size, and a CPU computes them no faster.

Layers are float16 from the first on. Encoding, softmax, input and output stay in float32: raw
columns may be larger than any float16, and onnxruntime's own converter would cast them on the way.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedistill.compress.quantize import LAYERS

_HALF = "_float16"


def halve_file(source: Path, destination: Path) -> None:
    """Write the float16 form of the ONNX file `source` to `destination`.

    Args:
        source: A float student as `export_student` writes it.
        destination: Where the file goes.
    """
    model = onnx.load(source)
    graph = model.graph
    nodes = list(graph.node)
    first = next(place for place, node in enumerate(nodes) if node.op_type in LAYERS)
    before, layers, softmax = nodes[:first], nodes[first:-1], nodes[-1]
    if softmax.op_type != "Softmax":
        raise ValueError(f"the last operator is {softmax.op_type} and must be Softmax")

    given = _float_tensors(model, before) & {name for node in layers for name in node.input}
    weights = {each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    for node in layers:
        for place, name in enumerate(node.input):
            if name in given or name in weights:
                node.input[place] = f"{name}{_HALF}"
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    used = {name for node in layers for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float16), f"{name}{_HALF}")
        for name, each in weights.items()
        if f"{name}{_HALF}" in used
    )
    logits = softmax.input[0]
    softmax.input[0] = f"{logits}_float32"

    casts = [
        helper.make_node("Cast", [name], [f"{name}{_HALF}"], to=TensorProto.FLOAT16)
        for name in sorted(given)
    ]
    back = helper.make_node("Cast", [logits], [f"{logits}_float32"], to=TensorProto.FLOAT)
    del graph.node[:]
    graph.node.extend([*before, *casts, *layers, back, softmax])
    still = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in still]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    destination.write_bytes(model.SerializeToString())


def _float_tensors(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> set[str]:
    """Names of the float32 tensors that these nodes make, or that go in."""
    made = {name for node in nodes for name in node.output} | {
        each.name for each in model.graph.input
    }
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        each.name
        for each in (*inferred.value_info, *inferred.input)
        if each.name in made and each.type.tensor_type.elem_type == TensorProto.FLOAT
    }
