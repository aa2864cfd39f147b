"""Exported students in int8, with static and with dynamic ranges, by onnxruntime.

Weights become int8, one scale per output channel. Static: activations become uint8, with ranges
seen on proxy rows (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 2). Dynamic: the range of activations is that of each
batch, so a row's answer depends a little on the rows beside it, and only Gemm and MatMul take part,
since integer convolutions without known ranges are slower than those in float. Only Conv, Gemm and
MatMul are quantized, and by default not the last Gemm or MatMul: it holds a percent of the weights,
and uint8 logits would tie rows that differ. The encoding compares raw values with edges and stays
in float.

CPUs without VNNI multiply uint8 by int8 with an instruction that adds pairs of products in 16 bits
and saturates (vpmaddubsw). Full 8-bit weights overflow there: answers change and nothing warns.
`reduce_range` keeps weights to 7 bits, which cannot overflow, and costs one bit of precision.
With VNNI the sum is 32 bits wide and all 8 bits are safe. Unless the run config says where the file
will run, the choice is made for the machine that quantizes, because the quality gate measures
there; a file with 8-bit weights should not move to a CPU without VNNI, and the manifest says which
one it is.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from fedistill.compress.export import INPUT
from fedistill.distill.encoding import Rows

CPUINFO = Path("/proc/cpuinfo")
VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})
DENSE = ("Gemm", "MatMul")
LAYERS = ("Conv", *DENSE)
ROWS_AT_ONCE = 1024


def needs_reduced_range(cpuinfo: Path = CPUINFO) -> bool:
    """Whether int8 weights must keep to 7 bits on this machine: yes unless it shows VNNI."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return True
    flags = {
        flag
        for line in text.splitlines()
        if line.startswith("flags")
        for flag in line.partition(":")[2].split()
    }
    return not flags & VNNI_FLAGS


def quantize_file(
    source: Path,
    destination: Path,
    proxy_rows: Rows,
    *,
    reduce_range: bool,
    float_ends: str = "last",
) -> None:
    """Write the static int8 form of the ONNX file `source` to `destination`.

    Args:
        source: A float student as `export_student` writes it.
        destination: Where the quantized file goes.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing; sets activation ranges.
        reduce_range: Keep weights to 7 bits; see `needs_reduced_range`.
        float_ends: Layers that stay in float32: "last", "both" or "none".
    """
    with tempfile.TemporaryDirectory(prefix="fedistill-quantize-") as scratch:
        prepared, quantized = Path(scratch) / "prepared.onnx", Path(scratch) / "quantized.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _ProxyReader(proxy_rows),
            quant_format=QuantFormat.QDQ,
            # Relu too: it then melts into the range of the layer before it, which starts at zero.
            op_types_to_quantize=[*LAYERS, "Relu"],
            nodes_to_exclude=_in_float(onnx.load(prepared), float_ends),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
        )
        destination.write_bytes(quantized.read_bytes())


def quantize_dynamically(
    source: Path, destination: Path, *, reduce_range: bool, float_ends: str = "last"
) -> None:
    """Write the int8 form of `source` whose activations are ranged batch by batch.

    The arguments are those of `quantize_file`.
    """
    with tempfile.TemporaryDirectory(prefix="fedistill-quantize-") as scratch:
        prepared, quantized = Path(scratch) / "prepared.onnx", Path(scratch) / "quantized.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            quantized,
            op_types_to_quantize=list(DENSE),
            nodes_to_exclude=_in_float(onnx.load(prepared), float_ends),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
        )
        destination.write_bytes(quantized.read_bytes())


def _in_float(model: onnx.ModelProto, float_ends: str) -> list[str]:
    """Names of the layers that stay in float."""
    layers = [node.name for node in model.graph.node if node.op_type in LAYERS]
    dense = [node.name for node in model.graph.node if node.op_type in DENSE]
    last = dense[-1:]
    return {"none": [], "last": last, "both": layers[:1] + last}[float_ends]


class _ProxyReader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds proxy rows to the calibrator, a chunk at a time."""

    def __init__(self, rows: Rows) -> None:
        self._chunks: Iterator[Rows] = (
            rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)
        )

    def get_next(self) -> dict[str, Rows] | None:
        chunk = next(self._chunks, None)
        return None if chunk is None else {INPUT: chunk}
