"""A small process that runs `flwr run` and lets nothing it started outlive the command.

Flower detaches a SuperLink, which detaches a SuperExec, which starts the simulation, which starts
Ray: a dozen processes in sessions of their own. The command starts this guardian, which starts all
of them, and keeps a pipe to it open. When the pipe closes, because the command is done,
was interrupted or was killed, the guardian ends every process of the run and removes its folder.

    python -m fedistill.cli.guardian FOLDER [--keep] COMMAND...

`COMMAND`'s output goes to `FOLDER/flower.log`. One line of JSON on stdout says how the run ended
(`Outcome`); it is written when no process of the run is left.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MARKER = "FEDISTILL_SIMULATION"
SUPERLINK = "flower-superlink"
SIMULATION = "flwr-simulation"
LOG = "flower.log"
KEEP = "--keep"

TICK = 0.5  # seconds between two looks at the processes
PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL
GRACE = 20.0  # seconds in which Flower may notice by itself that a run's process died

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: Flower's word, such as `finished:completed`; "" when the run never started, `lost`
            when a process that it cannot do without died.
        details: Flower's details, or which process died.
    """

    status: str
    details: str


def main() -> None:
    """Run the command, report its outcome, clean up."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    keep = command[0] == KEEP
    command = command[1:] if keep else command
    marker = os.environ[MARKER]
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        outcome = _run(folder, command, marker)
        stop_all(marker)
        if outcome is not None:
            print(json.dumps(asdict(outcome)), flush=True)
            sys.stdin.read()  # until the command has taken what it needs from the folder
    finally:
        stop_all(marker)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, command: list[str], marker: str) -> Outcome | None:
    """Wait for the end of the run; None when the pipe closed first."""
    with (folder / LOG).open("ab") as log:
        flwr = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        watch = _Watch(marker)
        while flwr.poll() is None:
            if _pipe_closed(TICK):
                return None
            if lost := watch.lost():
                return Outcome(status="lost", details=lost)
        while True:
            outcome = _ask_flower(command[0], log.fileno()) if watch.superlink_lives() else None
            if outcome is None:
                return Outcome(status="", details="")
            if outcome.status.startswith(("finished", "lost")):
                return outcome
            if lost := watch.lost():
                return Outcome(status="lost", details=lost)
            if _pipe_closed(1.0):
                return None


def _pipe_closed(seconds: float) -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)


def _ask_flower(flwr: str, log: int) -> Outcome | None:
    """What `flwr list` says of the only run; its exit code and that of `flwr run` say nothing."""
    try:
        answer = subprocess.run(  # noqa: S603
            [flwr, "list", "--format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=60,
            check=False,
        )
        runs = json.loads(answer.stdout)["runs"]
    except subprocess.TimeoutExpired:
        return Outcome(status="lost", details="Flower's SuperLink does not answer")
    except (ValueError, KeyError):
        return None
    if not runs:
        return None
    return Outcome(status=runs[0]["status"], details=runs[0]["status-details"])


class _Watch:
    """Notices the death of a process that the run cannot do without."""

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._seen: set[str] = set()
        self._simulation_died: float | None = None

    def superlink_lives(self) -> bool:
        return SUPERLINK in self._look()

    def lost(self) -> str:
        """Which process died; "" while all is well or Flower may still notice by itself."""
        alive = self._look()
        if SUPERLINK in self._seen - alive:
            return "Flower's SuperLink died"
        if SIMULATION in self._seen - alive:
            self._simulation_died = self._simulation_died or time.monotonic()
            if time.monotonic() - self._simulation_died > GRACE:
                return "Flower's simulation process died; was there enough memory?"
        return ""

    def _look(self) -> set[str]:
        alive = set()
        for process in processes(self._marker):
            try:
                words = " ".join(process.cmdline()[:2])
            except psutil.Error:
                continue
            alive |= {name for name in (SUPERLINK, SIMULATION) if words.endswith(name)}
        self._seen |= alive
        return alive


def adopt_orphans() -> None:
    """Make this process the parent of all its descendants whose parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def processes(marker: str) -> set[psutil.Process]:
    """Living processes of a run: this one's descendants, and all that inherited the marker.

    Both, because Ray's workers overwrite their environment, and because orphans are adopted on
    Linux only.
    """
    family = set(psutil.Process().children(recursive=True)) | set(marked(marker))
    return {process for process in family if _alive(process)} - {psutil.Process()}


def marked(marker: str) -> Iterator[psutil.Process]:
    """All processes whose environment holds the marker of a run."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker:
                yield process
        except (psutil.Error, OSError):
            continue


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop_all(marker: str) -> None:
    """End every process of the run: ask first, then kill."""
    for kill in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + PATIENCE
        told: set[psutil.Process] = set()
        while (family := processes(marker)) and time.monotonic() < deadline:
            for process in family - told:
                try:
                    process.send_signal(kill)
                except psutil.Error:
                    continue
            told |= family
            time.sleep(0.1)
    _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main()
