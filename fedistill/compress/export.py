"""A student as files: ONNX for inference, safetensors and a manifest to rebuild it from.

The ONNX file is complete: raw columns go in, probabilities come out, and the encoding in between
runs in float32 inside the graph.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

import fedistill
from fedistill.data.schema import Kind, Schema
from fedistill.distill.encoding import ROW_QUANTILES, VALUE_QUANTILES, TabularEncoding
from fedistill.distill.network_students import FARTHEST, NetworkStudent, Scaled, network_student
from fedistill.distill.networks import folded, shape_like
from fedistill.distill.students import Student, TabularStudent
from fedistill.errors import ConfigError, DataError
from fedistill.features.images import ImageShape
from fedistill.features.onnx_traces import quiet, strip

INPUT = "rows"
OUTPUT = "probabilities"
OPSET = 20
LARGEST_BATCH = 65536
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")

WEIGHTS_FILE = "student.safetensors"
MANIFEST_FILE = "manifest.json"
FORMAT = 2

CODING = {
    Kind.NUMBER: "the number itself; NaN where it is missing",
    Kind.BOOLEAN: "1 for true and 0 for false; NaN where it is missing",
    Kind.DATE: "days since 1970-01-01; NaN where it is missing",
    Kind.CATEGORY: "position of the text in the column's categories, counted from 0; NaN where "
    "it is missing or not among them",
    Kind.EMPTY: "NaN, whatever the value: no public row has one",
}
"""How a value of each kind becomes a float32."""


class _Probabilities(nn.Module):
    """What is exported: raw rows to class probabilities."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoding = student.encoding
        if isinstance(student.encoding, Scaled) and student.encoding.shape is not None:
            self.encoding = _ScaledImages(student.encoding, student.encoding.shape)
        # A BatchNorm between a convolution and what follows would keep it from being quantized.
        self.body = folded(student.body) if isinstance(student, NetworkStudent) else student.body

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.body(self.encoding(rows))
        return logits.softmax(dim=1)


class _ScaledImages(nn.Module):
    """`Scaled` with one mean and deviation a channel in place of one a pixel."""

    mean: Tensor
    std: Tensor

    def __init__(self, scaled: Scaled, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape
        self.farthest = FARTHEST
        for name in ("mean", "std"):
            of_pixels = getattr(scaled, name).reshape(shape.channels, -1)
            self.register_buffer(name, of_pixels[:, :1, None].clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Raw rows (batch, num_columns) to images (batch, channels, side, side)."""
        images = rows.reshape(-1, self.shape.channels, self.shape.side, self.shape.side)
        scaled = torch.where(images.isnan(), 0.0, (images - self.mean) / self.std)
        return scaled.clamp(-self.farthest, self.farthest)


def check_exportable(student: Student) -> None:
    """Refuse a student that ONNX cannot hold, before anything is asked for it.

    Raises:
        ConfigError: Names the operator.
    """
    _to_onnx(student)


def export_student(student: Student, path: Path, *, schema: Schema, classes: Sequence[str]) -> None:
    """Write the student as a self-contained ONNX file.

    One input `rows`, float32 (batch, num_columns), coded as `CODING` says; one output
    `probabilities`, float32 (batch, num_classes). The file's metadata holds columns, classes and
    coding as JSON, as in the manifest; of images their shape in place of each pixel's name.

    Raises:
        ConfigError: It has an operator that ONNX has not.
    """
    model = _to_onnx(student)
    strip(model)
    onnx.helper.set_model_props(
        model,
        {
            "columns": json.dumps(_columns_in_file(student, schema)),
            "classes": json.dumps(list(classes)),
            "coding": json.dumps(CODING),
            "fedistill": fedistill.__version__,
        },
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _to_onnx(student: Student) -> onnx.ModelProto:
    # Two rows: an example batch of one would be taken for a constant.
    example = torch.zeros(2, student.num_columns)
    try:
        with quiet():
            program = torch.onnx.export(
                _Probabilities(student).eval(),
                (example,),
                dynamo=True,
                optimize=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)},),
            )
    except OnnxExporterError as error:
        raise ConfigError(
            f"student={student.name!r} {_why_not_exported(error)}: build it of operators that ONNX "
            "has, for any number of rows"
        ) from error
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto


def _why_not_exported(error: BaseException) -> str:
    """The operator that stands in the way, as far as the exporter's chain of errors names one."""
    cause: BaseException | None = error
    while cause is not None:
        if found := _OPERATOR.search(str(cause)):
            return f"has the operator {found[1]!r}, which cannot be exported to ONNX"
        error, cause = cause, cause.__cause__ or cause.__context__
    return f"cannot be exported to ONNX ({type(error).__name__}: {str(error).splitlines()[0]})"


def weights_to_bytes(student: Student) -> bytes:
    """The student's weights and its encoding as safetensors."""
    tensors = {name: tensor.contiguous() for name, tensor in student.state_dict().items()}
    return bytes(save_tensors(tensors))


def describe(student: Student, *, schema: Schema, classes: Sequence[str]) -> dict[str, Any]:
    """What the manifest says about the student and the software that made it."""
    return {
        "format": FORMAT,
        "columns": _columns(schema),
        "coding": dict(CODING),
        "classes": list(classes),
        "input": {"name": INPUT, "dtype": "float32", "missing": "NaN"},
        "output": {"name": OUTPUT, "dtype": "float32"},
        "student": student.name,
        **_architecture(student),
        "onnx_opset": OPSET,
        "versions": {
            "fedistill": fedistill.__version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def _architecture(student: Student) -> dict[str, Any]:
    """What it takes, with the weights, to build the student again."""
    if isinstance(student, TabularStudent):
        return {
            "hidden": list(student.hidden),
            "encoding": {
                "kind": "0/1 columns of categories, piecewise-linear + z-score + missing flags",
                "row_quantiles": ROW_QUANTILES,
                "value_quantiles": VALUE_QUANTILES,
                "width": student.encoding.width,
            },
        }
    shape = student.encoding.shape if isinstance(student, NetworkStudent) else None
    image = None if shape is None else {"channels": shape.channels, "side": shape.side}
    return {"encoding": {"kind": "scaled columns; missing ones are 0", "image": image}}


def write_manifest(path: Path, description: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Write the manifest, which pins each of `files` by name, size and sha256."""
    pinned = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files}
    text = json.dumps({**description, "files": pinned}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def load_student(directory: Path) -> Student:
    """Rebuild the float student from `student.safetensors` and `manifest.json`.

    Raises:
        DataError: A file is missing, is not what its name says, is of another format, or is not
            the one that the manifest pins.
        ConfigError: It is a network of one's own that cannot be made here.
    """
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
        content = (directory / WEIGHTS_FILE).read_bytes()
        written, pinned = manifest["format"], manifest["files"][WEIGHTS_FILE]["sha256"]
        untrained = _builder(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory}: no student can be read here: {error!r}") from error
    if written != FORMAT:
        raise DataError(
            f"{directory / MANIFEST_FILE}: format={written} must be {FORMAT}: read it with the "
            "version of fedistill that it names"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != pinned:
        raise DataError(
            f"{directory / WEIGHTS_FILE}: sha256 is {found} but the manifest pins {pinned}: "
            "restore the file that belongs to the manifest"
        )
    state = load_tensors(content)
    student = untrained(state)
    student.load_state_dict(state)
    return student.eval()


def _builder(manifest: Mapping[str, Any]) -> Callable[[dict[str, Tensor]], Student]:
    """What makes a student of the manifest's kind, as wide as a state dict that it is given."""
    name, num_classes = manifest["student"], len(manifest["classes"])
    if name == "mlp":
        hidden = tuple(manifest["hidden"])
        return lambda state: TabularStudent(TabularEncoding(_encoding(state)), hidden, num_classes)
    image = manifest["encoding"]["image"]
    shape = None if image is None else ImageShape(**image)

    def build(state: dict[str, Tensor]) -> Student:
        student = network_student(name, Scaled(**_encoding(state), shape=shape), num_classes)
        shape_like(student, state)
        return student

    return build


def _encoding(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "encoding."
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}


def _columns(schema: Schema) -> list[dict[str, Any]]:
    """Name and kind of each raw column, and the categories of those that have any."""
    return [
        {"name": column.name, "kind": column.kind.value}
        | ({"categories": list(column.categories)} if column.kind is Kind.CATEGORY else {})
        for column in schema
    ]


def _columns_in_file(student: Student, schema: Schema) -> list[dict[str, Any]] | dict[str, Any]:
    """Columns as the ONNX file names them: hundreds of pixels would be most of a small file."""
    shape = student.encoding.shape if isinstance(student, NetworkStudent) else None
    if shape is None:
        return _columns(schema)
    return {"pixels": {"channels": shape.channels, "side": shape.side}, "kind": "number"}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
