"""Which ledgers a command is about: a file, those of a run, or those of the last run."""

import json
from dataclasses import dataclass
from pathlib import Path

from fedistill.config import RunConfig
from fedistill.errors import DataError
from fedistill.federation.run_folder import RunFolder, run_folder
from fedistill.privacy.ledger_anchor import anchor_path

_SUFFIX = ".ledger.db"


@dataclass(frozen=True, kw_only=True)
class LedgerFile:
    """A ledger, or what is left of it.

    Attributes:
        path: The database; it may be gone while its anchor remains.
        policy: The policy of the site in the run that was asked about, where there is one.
        receipts: Of the run that was asked about; None: `receipts.jsonl` beside the ledger.
    """

    path: Path
    policy: Path | None = None
    receipts: Path | None = None

    @property
    def site(self) -> str:
        """Whose it is, by its name."""
        return self.path.name.removesuffix(_SUFFIX)


def find_ledgers(path: Path | None, run: str | None) -> tuple[LedgerFile, ...]:
    """The ledger at `path`, or those of `run`, or of the last run.

    Args:
        path: A ledger.
        run: Name of a folder under `$FEDISTILL_HOME/runs`, or a path to a run's folder.

    Raises:
        DataError: there is none, or both are given.
    """
    if path is not None and run is not None:
        raise DataError(f"PATH={path} and --run={run} name different ledgers: give one of them")
    if path is None:
        return _ledgers_of(RunFolder(_last_run() if run is None else _run_named(run)))
    # A ledger that is gone while its anchor remains is a finding, not a mistyped path.
    if not path.is_file() and not anchor_path(path).is_file():
        raise DataError(f"PATH={path} is no ledger: give the path of a {_SUFFIX} file")
    return (LedgerFile(path=path),)


def _ledgers_of(folder: RunFolder) -> tuple[LedgerFile, ...]:
    names = {path.name for path in folder.path.glob(f"*{_SUFFIX}")}
    names |= {path.stem for path in folder.path.glob(f"*{_SUFFIX}.anchor")}
    paths = [folder.path / name for name in sorted(names)] or _lasting_ledgers(folder)
    if not paths:
        raise DataError(
            f"--run={folder.path} has no ledger: a run with a ledger-dir of its own names it when "
            f"it is finished; give the path of a {_SUFFIX} file"
        )
    found = [LedgerFile(path=path) for path in paths]
    policies = [folder.site(ledger.site) / "policy.toml" for ledger in found]
    return tuple(
        LedgerFile(
            path=ledger.path,
            policy=policy if policy.is_file() else None,
            receipts=folder.receipts,
        )
        for ledger, policy in zip(found, policies, strict=True)
    )


def _lasting_ledgers(folder: RunFolder) -> list[Path]:
    """Ledgers in the `ledger-dir` of a finished run."""
    if not folder.summary.is_file():
        return []
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
        directory, sites = summary["config"]["ledger-dir"], summary["privacy"]["sites"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder.summary} cannot be read: give the path of a ledger") from error
    return [Path(directory) / f"{site}{_SUFFIX}" for site in sorted(sites)] if directory else []


def _run_named(run: str) -> Path:
    named = run_folder(RunConfig.from_flat({}), run).path
    for folder in (named, Path(run).expanduser()):
        if folder.is_dir():
            return folder
    raise DataError(f"--run={run} must be a run's folder, or the name of one in {named.parent}")


def _last_run() -> Path:
    runs = run_folder(RunConfig.from_flat({}), "any").path.parent
    folders = [folder for folder in runs.glob("*") if folder.is_dir()]
    if not folders:
        raise DataError(
            f"there is no run in {runs}: give the path of a ledger, or a run's folder with --run"
        )
    return max(folders, key=_started)


def _started(folder: Path) -> float:
    mark = RunFolder(folder).checkpoint("run.json")
    return (mark if mark.is_file() else folder).stat().st_mtime
