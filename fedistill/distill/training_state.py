"""Checkpoints of a training by stages: complete or absent, and of one config alone."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedistill.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

_POSITION = "position.json"
_NEWEST = "newest"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a training has come.

    Attributes:
        config_sha256: Of the config that it serves.
        stage: Counts from 0.
        epoch: Epochs of the stage that are done.
        temperature: What a search of the stage found; 0 where there was none.
        best: Greatest agreement of the stage so far, below 0 for none yet.
        stale: Epochs since then.
        ended: Whether the stage is over before its last epoch.
    """

    config_sha256: str
    stage: int = 0
    epoch: int = 0
    temperature: float = 0.0
    best: float = -1.0
    stale: int = 0
    ended: bool = False

    def next_stage(self) -> "Position":
        """The beginning of the stage after this one."""
        return Position(config_sha256=self.config_sha256, stage=self.stage + 1)


@dataclass(frozen=True, kw_only=True)
class State:
    """What of a training is not in the model and the optimizer.

    Attributes:
        average: The moving average, of this process.
        begun: Whether it has taken in any weights.
        best: The average at `Position.best`; empty for none.
        schedule: State of the learning rate's schedule.
    """

    average: Sequence[Tensor]
    begun: bool
    best: Sequence[Tensor]
    schedule: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a training's checkpoints, of which the newest is kept."""

    folder: Path
    config_sha256: str

    def position(self) -> Position | None:
        """Where the newest checkpoint is; None where there is none.

        Raises:
            ConfigError: It serves another config.
        """
        path = self.folder / _NEWEST / _POSITION
        if not path.is_file():
            return None
        position = Position(**json.loads(path.read_text()))
        if position.config_sha256 != self.config_sha256:
            raise ConfigError(
                f"{self.folder} holds a training of config {position.config_sha256[:12]}, and this "
                f"is {self.config_sha256[:12]}: choose another folder, or repeat that config (and "
                "the files that it names) to go on"
            )
        return position

    def save(self, accelerator: "Accelerator", position: Position, state: State) -> None:
        """Leave a checkpoint in place of the one before; all processes call it together."""
        fresh = self.folder / f"stage-{position.stage}-epoch-{position.epoch}"
        if accelerator.is_main_process:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(fresh))
        own = {name: getattr(state, name) for name in ("begun", "schedule")}
        tensors = {"average": list(state.average), "best": list(state.best)}
        torch.save({**own, **tensors}, fresh / f"process-{accelerator.process_index}.pt")
        if accelerator.is_main_process:
            (fresh / _POSITION).write_text(json.dumps(asdict(position)))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            self._put(fresh)

    def load(self, accelerator: "Accelerator") -> State:
        """Put the newest checkpoint's weights into model and optimizer; the rest is returned."""
        newest = self.folder / _NEWEST
        accelerator.load_state(str(newest.resolve()))
        path = newest / f"process-{accelerator.process_index}.pt"
        if not path.is_file():
            raise ConfigError(
                f"{self.folder} holds a training of fewer processes than "
                f"{accelerator.num_processes}: go on with as many as it began with"
            )
        return State(**torch.load(path, map_location=accelerator.device, weights_only=True))

    def _put(self, fresh: Path) -> None:
        """Point `newest` to a complete checkpoint, by one rename, and remove the others."""
        link = self.folder / f".{_NEWEST}"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        os.replace(link, self.folder / _NEWEST)
        for other in self.folder.glob("stage-*"):
            if other != fresh:
                shutil.rmtree(other, ignore_errors=True)


def better(position: Position, agreement: float, patience: int) -> Position:
    """The position after an epoch with that agreement on rows held out.

    Args:
        position: Of the epoch.
        agreement: In [0, 1]; NaN is none.
        patience: Epochs without a better one that end the stage.
    """
    if agreement > position.best:
        return replace(position, best=agreement, stale=0)
    stale = position.stale + 1
    return replace(position, stale=stale, ended=stale >= patience)
