"""A simulation's own Flower: its home, ports, processes and Ray, apart from everybody else's."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, cast

import tomli_w

from fedistill.cli.application import Application
from fedistill.cli.guardian import KEEP, LOG, MARKER, Outcome, adopt_orphans, stop_all
from fedistill.errors import RunFailed
from fedistill.federation import progress

Handler = Callable[[int, FrameType | None], None] | signal.Handlers

PROGRESS = "progress.jsonl"
OVERRIDES = "overrides.toml"

# Ray puts Unix sockets some 67 bytes below this folder, and their paths end at 107 bytes.
LONGEST_FOLDER = 38


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A run under its guardian, and the folder that goes away with it.

    Attributes:
        folder: Flower's home, Ray's files, the log and the progress file.
        answers: Where the guardian says how the run ended.
    """

    folder: Path
    answers: IO[str]

    @property
    def progress_path(self) -> Path:
        """The file that the workflow appends its progress to."""
        return self.folder / PROGRESS

    @property
    def log_path(self) -> Path:
        """All that Flower and the app printed."""
        return self.folder / LOG

    def outcome(self, seconds: float) -> Outcome | None:
        """How the run ended, or None if it still runs after `seconds`.

        Raises:
            RunFailed: The guardian died.
        """
        readable, _, _ = select.select([self.answers], [], [], seconds)
        if not readable:
            return None
        line = self.answers.readline()
        if not line:
            raise RunFailed("the process that guards the simulation died")
        return Outcome(**json.loads(line))


@contextmanager
def start(application: Application, *, keep: bool = False) -> Iterator[Simulation]:
    """Run an app in a Flower of its own; leaving the context ends every process of it.

    SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt inside. `keep` leaves the folder behind.
    """
    folder = _make_folder()
    flwr = Path(sysconfig.get_path("scripts")) / "flwr"
    command = [sys.executable, "-P", "-m", "fedistill.cli.guardian", str(folder)]
    command += [KEEP] if keep else []
    command += [str(flwr), "run", str(application.directory), "--stream"]
    if application.overrides:
        path = folder / OVERRIDES
        path.write_text(tomli_w.dumps(application.overrides), encoding="utf-8")
        command += ["--run-config", str(path)]
    environment = _environment(folder)
    adopt_orphans()  # the guardian's, should it be killed
    with signals_interrupt(), (folder / LOG).open("ab") as log:
        guardian = subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the command; the guardian has work to do then
        )
        orders, answers = cast(IO[str], guardian.stdin), cast(IO[str], guardian.stdout)
        try:
            yield Simulation(folder=folder, answers=answers)
        finally:
            with signal_handlers(signal.SIG_IGN):
                orders.close()  # the order to clean up
                guardian.wait()
                answers.close()
                if guardian.returncode < 0:  # killed before it could do its work
                    stop_all(environment[MARKER])
                    shutil.rmtree(folder, ignore_errors=True)


def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fedistill-"))
    if len(str(folder)) <= LONGEST_FOLDER:
        return folder
    shutil.rmtree(folder)
    return Path(tempfile.mkdtemp(prefix="fedistill-", dir="/tmp"))


def _environment(folder: Path) -> dict[str, str]:
    control, http = free_ports(2)
    environment = os.environ | {
        MARKER: uuid.uuid4().hex,
        progress.VARIABLE: str(folder / PROGRESS),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning of every worker
        "PYTHONUNBUFFERED": "1",
        # Flower starts its own commands by name.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]),
    }
    environment.pop("RAY_ADDRESS", None)
    return environment


def free_ports(count: int) -> list[int]:
    """So many TCP ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt inside."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with signal_handlers(interrupt):
        yield


@contextmanager
def signal_handlers(handler: Handler) -> Iterator[None]:
    """Another handler for SIGINT, SIGTERM and SIGHUP inside."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup keeps its meaning
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
