"""The folder that a run leaves behind, and what of it is already finished."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from fedistill.config import RunConfig
from fedistill.errors import ConfigError
from fedistill.evaluate.files import write_atomically

HOME_VARIABLE = "FEDISTILL_HOME"


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
            write_atomically(mark, json.dumps({"config-sha256": config.sha256()}))
        except OSError as error:
            raise ConfigError(
                f"output-dir={str(self.path)!r} must be writable: {error.strerror}"
            ) from error
        return resumed


def run_folder(config: RunConfig, run_id: str) -> RunFolder:
    """`output-dir`, or `$FEDISTILL_HOME/runs/<run-id>`."""
    home = Path(os.environ.get(HOME_VARIABLE) or "~/.fedistill").expanduser().absolute()
    return RunFolder(Path(config.output_dir) if config.output_dir else home / "runs" / run_id)


def ledger_path(config: RunConfig, folder: RunFolder, site: str) -> Path:
    """`<ledger-dir>/<site>.ledger.db`; by default a fresh one in the run folder."""
    directory = Path(config.ledger_dir) if config.ledger_dir else folder.path
    return directory / f"{site}.ledger.db"


def countersign_dir(config: RunConfig, folder: RunFolder) -> Path:
    """`countersign-dir`; by default beside a simulation's ledgers, else in the server's home."""
    if config.countersign_dir:
        return Path(config.countersign_dir)
    if config.proxy_path:
        home = Path(os.environ.get(HOME_VARIABLE) or "~/.fedistill").expanduser().absolute()
        return home / "server"
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
    mark = folder.checkpoint("run.json")
    if mark.is_file() and json.loads(mark.read_text())["config-sha256"] != config.sha256():
        raise ConfigError(
            f"output-dir={str(path)!r} holds an unfinished run of another config: "
            "choose another folder, or repeat that config to finish it"
        )
    check_writable("output-dir", path)


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
