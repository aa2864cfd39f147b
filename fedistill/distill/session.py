"""Where and how a training by a recipe runs: devices, checkpoints, what is tracked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedistill.distill.progress import Progress
from fedistill.distill.training_state import Checkpoints
from fedistill.errors import ConfigError
from fedistill.features.affine import Affine

if TYPE_CHECKING:
    from accelerate import Accelerator

_COPIES = "NO", "MULTI_GPU", "MULTI_CPU"
"""Ways of accelerate's to spread a training that leave each process the whole model."""

EXTRAS = {"accelerate": "train", "tensorboard": "tensorboard", "mlflow": "mlflow"}
"""The extra of this package that brings another."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where and how a training runs.

    Attributes:
        seed: Of order, views and mixing.
        checkpoints: None to leave none.
        views: Bounds of the moves of images; None shows them as they are.
        device: "" for the best there is, "cpu" for that.
        track: "none", "tensorboard" or "mlflow".
        logs: Folder of what is tracked.
        progress: Called with steps done and in all.
    """

    seed: int
    checkpoints: Checkpoints | None = None
    views: Affine | None = None
    device: str = ""
    track: str = "none"
    logs: Path | None = None
    progress: Progress | None = None


def accelerator_of(session: Session, *, idle_parameters: bool) -> "Accelerator":
    """Where the loop runs.

    Args:
        session: Its device and tracker count here.
        idle_parameters: Whether steps may leave some parameters without a gradient.

    Raises:
        ConfigError: accelerate or the tracker is not installed, or accelerate is configured to
            split the model.
    """
    check_installed(session.track)
    from accelerate import Accelerator, DistributedDataParallelKwargs

    on_gpu = torch.cuda.is_available() and session.device != "cpu"
    tracked = None if session.track == "none" else session.track
    accelerator = Accelerator(
        cpu=session.device == "cpu",
        mixed_precision="bf16" if on_gpu else "no",
        log_with=tracked,
        project_dir=str(session.logs) if session.logs else None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=idle_parameters)],
    )
    if accelerator.distributed_type not in _COPIES:
        raise ConfigError(
            f"accelerate's configuration asks for {accelerator.distributed_type.value}, and the "
            "trainer runs on one device, or as copies of a small model on several: choose MULTI_GPU"
        )
    if tracked:
        accelerator.init_trackers("fedistill")
    return accelerator


def check_installed(track: str) -> None:
    """Refuse a recipe, or a tracker, whose package is not installed.

    Raises:
        ConfigError: Names the extra that brings it.
    """
    for package in ("accelerate", track):
        if package == "none" or find_spec(package) is not None:
            continue
        key = "a recipe" if package == "accelerate" else f"track={track!r}"
        raise ConfigError(
            f"{key} needs {package}, which is not installed: "
            f"pip install 'fedistill[{EXTRAS[package]}]'"
        )


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for as long as this lasts."""
    learning = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(learning)
