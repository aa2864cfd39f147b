"""The folder of a federation on one machine: whose it is, what runs in it, how it goes away.

`dev.json` is there before the first process is started, and names the marker that every process of
the federation inherits in its environment (`fedistill.cli.guardian`). So whoever has the folder
finds all of them, however the command that started them ended.
"""

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedistill.cli.guardian import MARKER
from fedistill.errors import BadInput, ProvisionError
from fedistill.federation.run_folder import HOME_VARIABLE
from fedistill.provision import files
from fedistill.provision.project import Workshop
from fedistill.provision.site_folder import SiteFolder
from fedistill.site.site_config import LONGEST_SOCKET_PATH

SITES = ("bank_a", "bank_b", "bank_c")
SERVICES = (
    *("superlink", "front"),
    *(f"agent-{site}" for site in SITES),
    *(f"supernode-{site}" for site in SITES),
)
"""Names of the processes that make a federation, in the order of their start."""

_LARGEST = 1 << 20


class Mark(BaseModel):
    """`dev.json`: this folder is a federation of `fedistill dev up`.

    Attributes:
        marker: What its processes have in their environment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fedistill dev 1"] = "fedistill dev 1"
    marker: str = Field(pattern="^[0-9a-f]{32}$")


@dataclass(frozen=True)
class DevFolder:
    """Where everything of the federation lies."""

    path: Path

    @property
    def mark(self) -> Path:
        """Says whose the folder is."""
        return self.path / "dev.json"

    @property
    def pids(self) -> Path:
        """Which process is which service."""
        return self.path / "processes.json"

    @property
    def workshop(self) -> Workshop:
        """The coordinator's folder."""
        return Workshop(self.path / "coordinator" / "project.toml")

    @property
    def app(self) -> Path:
        """The app directory that `flwr run` submits."""
        return self.workshop.folder / "app"

    @property
    def proxy(self) -> Path:
        """The published proxy set."""
        return self.workshop.folder / "proxy.bin"

    @property
    def test(self) -> Path:
        """Public rows with labels."""
        return self.workshop.folder / "test.csv"

    @property
    def progress(self) -> Path:
        """What the workflow of a run appends its progress to."""
        return self.path / "logs" / "progress.jsonl"

    def site(self, name: str) -> SiteFolder:
        """A site's folder."""
        return SiteFolder(self.path / name)

    def agent(self, name: str) -> Path:
        """The file that a site's agent runs with."""
        return self.path / name / "agent.toml"

    def socket(self, name: str) -> Path:
        """The courier's socket of a site's agent."""
        return self.path / "run" / name / "agent.sock"

    def log(self, service: str) -> Path:
        """What a service printed."""
        return self.path / "logs" / f"{service}.log"

    def order(self, command: str) -> str:
        """What to type for another command about this folder."""
        folder = "" if self == chosen_folder(None) else f" --folder {shlex.quote(str(self.path))}"
        return f"fedistill dev {command}{folder}"


def chosen_folder(path: Path | None) -> DevFolder:
    """The folder that was named, else `$FEDISTILL_HOME/dev`."""
    home = Path(os.environ.get(HOME_VARIABLE) or "~/.fedistill").expanduser()
    return DevFolder((path or home / "dev").expanduser().absolute())


def claim(folder: DevFolder) -> Mark:
    """Make the folder a new federation's own.

    Raises:
        BadInput: It has a federation already, holds something else, cannot be written, or its path
            is too long for sockets.
    """
    longest = max(len(os.fsencode(folder.socket(site))) for site in SITES)
    if longest > LONGEST_SOCKET_PATH:
        raise BadInput(
            f"--folder={str(folder.path)!r} gives sockets a path of {longest} bytes, which must be "
            f"at most {LONGEST_SOCKET_PATH}: choose a shorter folder"
        )
    if folder.mark.exists():
        raise _taken(folder)
    files.make_folder(folder.path)
    if any(not each.name.endswith(".partial") for each in folder.path.iterdir()):
        raise BadInput(
            f"--folder={str(folder.path)!r} must be empty or not there yet: fedistill dev down "
            "removes it, so give it a folder of its own"
        )
    mark = Mark(marker=uuid.uuid4().hex)
    partial = folder.path / f"{mark.marker}.partial"
    files.write(partial, mark.model_dump_json().encode(), mode=files.PRIVATE)
    try:
        os.link(partial, folder.mark)  # unlike a rename it fails where there is one
    except FileExistsError:
        raise _taken(folder) from None
    finally:
        partial.unlink()
    return mark


def read_mark(folder: DevFolder) -> Mark:
    """Whose the folder is.

    Raises:
        BadInput: It is no federation of `fedistill dev up`.
    """
    if not folder.mark.exists():
        raise BadInput(
            f"--folder={str(folder.path)!r} is no federation of fedistill dev: nothing was done, "
            f"{folder.order('up')} makes one"
        )
    try:
        return Mark.model_validate_json(files.read(folder.mark, "mark", at_most=_LARGEST))
    except (ValidationError, ProvisionError) as error:
        raise BadInput(
            f"{folder.mark} was not written by fedistill dev up: nothing was done, remove the "
            "folder by hand if you do not need it"
        ) from error


def remove(folder: DevFolder) -> None:
    """Remove the folder; the mark goes last, so that a removal that was cut short can go on.

    Raises:
        BadInput: Something in it cannot be removed.
    """
    try:
        for each in folder.path.iterdir():
            if each == folder.mark:
                continue
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink()
        folder.mark.unlink()
        folder.path.rmdir()
    except FileNotFoundError:
        return  # another command removes it at the same time
    except OSError as error:
        raise BadInput(
            f"{error.filename} cannot be removed ({error.strerror}): remove it by hand"
        ) from error


def save_pids(folder: DevFolder, pids: Mapping[str, int]) -> None:
    """Write which process is which service."""
    files.write(folder.pids, json.dumps(dict(pids)).encode(), mode=files.PRIVATE)


def living(folder: DevFolder, mark: Mark) -> dict[str, psutil.Process | None]:
    """The process of each service; None for one that ended, or was never started."""
    pids: dict[str, int] = {}
    if folder.pids.exists():
        pids = json.loads(files.read(folder.pids, "processes", at_most=_LARGEST))
    return {name: _process(pids[name], mark) if name in pids else None for name in SERVICES}


def _process(pid: int, mark: Mark) -> psutil.Process | None:
    """The process, if it lives and is not another that got the same number."""
    try:
        process = psutil.Process(pid)
        ours = process.environ().get(MARKER) == mark.marker
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, OSError):
        return None


def _taken(folder: DevFolder) -> BadInput:
    return BadInput(
        f"--folder={str(folder.path)!r} has a federation already: {folder.order('status')} shows "
        f"it, {folder.order('down')} ends and removes it"
    )
