"""Real processes, real kills, real full disks: budget may be wasted, never overspent."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.errors import LedgerError
from fedistill.privacy import ledger_file
from fedistill.privacy.chain import anchor_path
from fedistill.privacy.ledger import Ledger

Open = Callable[..., Ledger]
Python = Callable[[str], "subprocess.Popen[str]"]


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out


def test_processes_that_charge_at_once_never_overspend(open_ledger: Open, python: Python) -> None:
    script = """
made = 0
with open_ledger() as ledger:
    try:
        for number in range(40):
            charge(ledger, f"{os.getpid()}-{number}", epsilon=0.2)
            made += 1
    except BudgetExceeded:
        print(made)
"""
    open_ledger().close()
    processes = [python(script) for _ in range(3)]
    made = sum(int(finish(process).split()[-1]) for process in processes)
    with open_ledger() as ledger:
        entries = ledger.entries()
        assert len(entries) == made > 1
        assert ledger.spent(1e-5) <= 1.0
        assert [entry.sequence for entry in entries] == list(range(1, made + 1))
        assert ledger.verify().complete


def test_a_charge_survives_a_kill_before_its_release_is_stored(
    open_ledger: Open, python: Python
) -> None:
    script = """
with open_ledger() as ledger:
    charge(ledger, "q1", epsilon=0.5)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    open_ledger().close()
    finish(python(script), code=-signal.SIGKILL)
    with open_ledger() as ledger:
        assert [entry.question for entry in ledger.entries()] == ["q1"]
        assert ledger.spent(1e-5) == pytest.approx(0.5)
        assert ledger.cached("q1") is None
        assert ledger.verify().complete


def test_a_kill_before_the_commit_leaves_neither_charge_nor_lock(
    open_ledger: Open, python: Python
) -> None:
    script = """
from fedistill.privacy import ledger_file
with open_ledger() as ledger:
    ledger._connection.execute("PRAGMA cache_spill=1")
    with ledger_file.transaction(ledger._connection):
        ledger._connection.execute("INSERT INTO charges VALUES (1, '{}', '')")
        os.kill(os.getpid(), signal.SIGKILL)
"""
    open_ledger().close()
    finish(python(script), code=-signal.SIGKILL)
    with open_ledger() as ledger:
        assert ledger.entries() == ()
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)


def test_a_kill_between_charge_and_anchor_leaves_a_ledger_that_goes_on(
    open_ledger: Open, python: Python
) -> None:
    script = """
import fedistill.privacy.ledger as module
module.write_anchor = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with open_ledger() as ledger:
    charge(ledger, "q1", epsilon=0.5)
"""
    open_ledger().close()
    finish(python(script), code=-signal.SIGKILL)
    with open_ledger() as ledger:
        assert ledger.spent(1e-5) == pytest.approx(0.5)


def test_a_creation_that_was_killed_is_finished_by_the_next(
    open_ledger: Open, path: Path, python: Python
) -> None:
    script = """
from fedistill.privacy import ledger_file
ledger_file.write_anchor = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Ledger.open(path, population="patients", adjacency=Adjacency.ADD_REMOVE, unit=Unit.RECORD,
            create=True)
"""
    finish(python(script), code=-signal.SIGKILL)
    assert path.exists()
    assert not anchor_path(path).exists()
    with open_ledger() as ledger:
        assert ledger.verify().complete


def test_a_full_disk_refuses_and_keeps_every_charge_it_confirmed(
    open_ledger: Open, path: Path, python: Python
) -> None:
    script = """
with open_ledger() as ledger:
    limit = path.stat().st_size + 60_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    confirmed = 0
    try:
        for number in range(40):
            charge(ledger, f"q{number}", epsilon=0.01, note="x" * 5000)
            confirmed += 1
    except LedgerError as error:
        assert "free" in str(error) or "disk" in str(error), error
        print(confirmed)
"""
    open_ledger().close()
    confirmed = int(finish(python(script)))
    with open_ledger() as ledger:
        assert 0 < confirmed <= len(ledger.entries())
        assert ledger.verify().valid
        ledger.charge("later", {}, ZCDpEvent(1e-6), budget_epsilon=1.0, delta=1e-5)


def test_a_ledger_that_cannot_be_written_refuses(
    open_ledger: Open, path: Path, python: Python
) -> None:
    script = """
if os.geteuid() == 0:
    os.setegid(65534), os.seteuid(65534)
with open_ledger() as ledger:
    try:
        charge(ledger, "q1")
    except LedgerError as error:
        print(error)
"""
    open_ledger().close()
    path.chmod(0o444)
    anchor_path(path).chmod(0o444)
    for parent in path.parents[:4]:
        if parent.owner() == path.owner() and parent != Path("/tmp"):  # noqa: S108
            parent.chmod(0o555)
    try:
        assert "make the file and its directory writable" in finish(python(script))
    finally:
        for parent in path.parents[:4]:
            if parent.owner() == path.owner() and parent != Path("/tmp"):  # noqa: S108
                parent.chmod(0o755)


def test_a_ledger_that_another_process_holds_refuses(
    open_ledger: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "LOCK_SECONDS", 0.1)
    with open_ledger() as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="another process holds it"):
            ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
        other.rollback()
        assert ledger.entries() == ()


def test_a_path_that_is_a_directory_is_refused(open_ledger: Open, path: Path) -> None:
    path.mkdir()
    with pytest.raises(LedgerError, match="directory"):
        open_ledger()


def test_a_charge_whose_anchor_cannot_be_written_is_not_confirmed(
    open_ledger: Open, path: Path
) -> None:
    with open_ledger() as ledger:
        blocker = path.with_name(f"{path.name}.anchor.{os.getpid()}")
        blocker.mkdir()
        with pytest.raises(LedgerError, match="nothing was released"):
            ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
        blocker.rmdir()
        assert [entry.question for entry in ledger.entries()] == ["q1"]
