"""The folder that a run leaves behind, and what of it is already finished."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedistill.config import RunConfig
from fedistill.errors import ConfigError, RunFailed
from fedistill.evaluate.files import write_atomically

HOME_VARIABLE = "FEDISTILL_HOME"

SECONDS_TO_LET_GO = 30.0
"""A server that lost its SuperLink ends within seconds; so long its successor waits."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. Every file in it is written complete or not at all."""

    path: Path

    @property
    def summary(self) -> Path:
        """`summary.json`."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def fronts(self) -> Path:
        """`pareto.svg`."""
        return self.path / "pareto.svg"

    @property
    def receipts(self) -> Path:
        """`receipts.jsonl`."""
        return self.path / "receipts.jsonl"

    def site(self, name: str) -> Path:
        """What a simulated site keeps for itself: its policy and its log."""
        return self.path / "sites" / name

    def checkpoint(self, name: str) -> Path:
        """A file of a finished phase."""
        return self.path / "checkpoints" / name

    def claim(self, config: RunConfig) -> bool:
        """Make the folder this config's own.

        Returns:
            Whether an unfinished run of the same config is taken up again.

        Raises:
            ConfigError: It holds a finished run, or a run of another config, or cannot be written.
        """
        mark = self.checkpoint("run.json")
        try:
            check_run_folder(self.path, config)
            resumed = mark.is_file()
            mark.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(mark, json.dumps({"config-sha256": config.work_sha256()}))
        except OSError as error:
            raise ConfigError(
                f"output-dir={str(self.path)!r} must be writable: {error.strerror}"
            ) from error
        return resumed

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from running in this folder; the kernel ends that with this one.

        Raises:
            ConfigError: The folder cannot be written.
            RunFailed: Another process runs in it, and did not end in `SECONDS_TO_LET_GO`.
        """
        lock = self.checkpoint("run.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"output-dir={str(self.path)!r} must be writable: {error.strerror}"
            ) from error
        try:
            _lock(descriptor, self.path)
            yield
        finally:
            os.close(descriptor)


def home() -> Path:
    """`$FEDISTILL_HOME`."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.fedistill").expanduser().absolute()


def run_folder(config: RunConfig, run_id: str) -> RunFolder:
    """`output-dir`, or `$FEDISTILL_HOME/runs/<run-id>`, the id that of the run gone on with."""
    if config.output_dir:
        return RunFolder(Path(config.output_dir))
    return RunFolder(home() / "runs" / (config.resume or run_id))


def ledger_path(config: RunConfig, folder: RunFolder, site: str) -> Path:
    """`<ledger-dir>/<site>.ledger.db`; by default a fresh one in the run folder."""
    directory = Path(config.ledger_dir) if config.ledger_dir else folder.path
    return directory / f"{site}.ledger.db"


def countersign_dir(config: RunConfig, folder: RunFolder) -> Path:
    """`countersign-dir`; by default beside a simulation's ledgers, else in the server's home."""
    if config.countersign_dir:
        return Path(config.countersign_dir)
    if config.proxy_path:
        return home() / "server"
    return ledger_path(config, folder, "any").parent


def check_run_folder(path: Path, config: RunConfig) -> None:
    """Refuse a folder that this config cannot use, before anything runs.

    Raises:
        ConfigError: See `RunFolder.claim`.
    """
    folder = RunFolder(path)
    if folder.summary.exists():
        raise ConfigError(
            f"output-dir={str(path)!r} already holds a finished run: choose another folder"
        )
    _check_config(folder, config)
    check_writable("output-dir", path)


def check_resumed(folder: RunFolder, config: RunConfig) -> bool:
    """Whether the run that `config.resume` names has finished already.

    Raises:
        ConfigError: No run ever began in the folder, or one of another config.
    """
    if not folder.checkpoint("run.json").is_file():
        raise ConfigError(
            f"resume={config.resume!r} must be a run that began, and {str(folder.path)!r} holds "
            "none: give the id that the run's first try had, and its output-dir if it had one"
        )
    _check_config(folder, config)
    return folder.summary.is_file()


def _check_config(folder: RunFolder, config: RunConfig) -> None:
    mark = folder.checkpoint("run.json")
    if mark.is_file() and json.loads(mark.read_text())["config-sha256"] != config.work_sha256():
        raise ConfigError(
            f"output-dir={str(folder.path)!r} holds an unfinished run of another config: "
            "choose another folder, or repeat that config to finish it"
        )


def check_writable(field: str, path: Path) -> None:
    """Refuse a folder that neither exists nor can be made, or cannot be written.

    Raises:
        ConfigError: Names the field and the path.
    """
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{field}={str(path)!r} must be a folder that can be written: "
            f"{str(existing)!r} is not; choose another"
        )


def _lock(descriptor: int, path: Path) -> None:
    """Wait for the lock of the process that had the folder before.

    Raises:
        RunFailed: It still works.
    """
    deadline = time.monotonic() + SECONDS_TO_LET_GO
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"output-dir={str(path)!r} is in use by another run: wait for its end, or "
                    "stop it with flwr stop"
                ) from error
            time.sleep(0.2)
        else:
            return
