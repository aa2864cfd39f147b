"""A file of public images as an encoder's ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedistill.cli.proxy_file import read_public
from fedistill.data import ProxySet
from fedistill.data.schema import Kind
from fedistill.distill.progress import shifted
from fedistill.errors import BadInput, DataError
from fedistill.features.encoder_file import write_encoder
from fedistill.features.joined_encoders import JoinedEncoders
from fedistill.features.self_supervised import Recipe, pretrain

DEVICES = ("auto", "cpu", "cuda")
_PROXY_START = b"fedistill-proxy"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was written.

    Attributes:
        images: How many it learned from.
        dimensions: Numbers of an embedding.
        sha256: Of the file.
    """

    images: int
    dimensions: int
    sha256: str


def train_encoder(
    proxy: Path,
    out: Path,
    *,
    epochs: int,
    networks: int = 1,
    seed: int,
    device: str,
    ignore_columns: tuple[str, ...],
    resume: bool,
    force: bool,
    progress: Callable[[int, int], None],
) -> Made:
    """Read public images, train on them, write the encoder, remove the checkpoint.

    Raises:
        BadInput: `proxy` cannot be read or holds no square images, `out` is there or cannot be
            written, the device is none of this machine, or the checkpoint is of another training.
    """
    if out.suffix != ".onnx":
        raise BadInput(f"{str(out)!r} must end in .onnx: name it so")
    if out.exists() and not force:
        raise BadInput(f"{str(out)!r} is there already: give --force to replace it")
    if not out.absolute().parent.is_dir():
        raise BadInput(f"{str(out.parent)!r} must be a folder: make it first")
    checkpoint = out.with_name(out.name + ".checkpoint")
    if resume and not checkpoint.exists():
        raise BadInput(f"{str(checkpoint)!r} is not there: begin without --resume")
    chosen = _device(device)
    rows = read_images(proxy, ignore_columns)
    recipe = Recipe(epochs=epochs)
    checkpoints = [checkpoint, *(Path(f"{checkpoint}-{each}") for each in range(1, networks))]
    encoders = [
        pretrain(
            rows,
            seed=seed + number,
            recipe=recipe,
            device=chosen,
            checkpoint=each,
            resume=resume and each.exists(),
            progress=shifted(progress, number * epochs, networks * epochs),
        )
        for number, each in enumerate(checkpoints)
    ]
    encoder = JoinedEncoders(encoders) if networks > 1 else encoders[0]
    sha256 = write_encoder(encoder, out)
    for each in checkpoints:
        each.unlink(missing_ok=True)
    return Made(images=len(rows), dimensions=encoder.dimensions, sha256=sha256)


def read_images(file: Path, ignore_columns: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Public rows of numbers, (num_rows, num_columns), in the order of the file.

    Raises:
        BadInput: The file cannot be read, a named column is not there, or one holds no numbers.
    """
    proxy = _read(file, ignore_columns)
    for column in proxy.schema:
        if column.kind not in (Kind.NUMBER, Kind.BOOLEAN, Kind.EMPTY):
            raise DataError(
                f"column {column.name!r} must hold pixels, and holds {column.kind.value}: name it "
                "in --ignore-columns"
            )
    return np.array(proxy.rows)


def _read(file: Path, ignore_columns: tuple[str, ...]) -> ProxySet:
    if _is_proxy(file):
        if ignore_columns:
            raise BadInput("--ignore-columns cannot change a proxy set: leave it out")
        return ProxySet.load(file)
    return read_public(file, ignore_columns=ignore_columns)


def _is_proxy(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return content.read(len(_PROXY_START)) == _PROXY_START
    except OSError:
        return False


def _device(name: str) -> str:
    if name not in DEVICES:
        raise BadInput(f"--device={name!r} must be one of {', '.join(DEVICES)}: choose one")
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device='cuda' must be a GPU of this machine: use cpu or auto")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
