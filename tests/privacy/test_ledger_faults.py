"""Real processes, real kills, real full disks: budget may be wasted, never overspent."""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.errors import LedgerError
from fedistill.privacy import ledger_file
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path
from fedistill.privacy.ledger_key import key_path
from fedistill.privacy.ledger_verify import verify

NOBODY = 65534
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
    script = '''
from fedistill.privacy import ledger_file
with open_ledger() as ledger:
    ledger._connection.execute("PRAGMA cache_spill=1")
    with ledger_file.transaction(ledger._connection):
        ledger._connection.execute(
            "INSERT INTO charges (sequence, entry, event, hash, signature)"
            """ VALUES (1, '{"event":{}}', '{}', '', '')""")
        os.kill(os.getpid(), signal.SIGKILL)
'''
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
module.add_to_anchor = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
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


def test_wherever_the_disk_is_full_nothing_is_released_and_nothing_is_lost(
    path: Path, python: Python
) -> None:
    """No file may grow beyond `limit`: key, journal, log, database or anchor fails."""
    script = """
declared = {"population": "patients", "adjacency": Adjacency.ADD_REMOVE, "unit": Unit.RECORD}
charge_it = lambda ledger: charge(ledger, "q", epsilon=0.01, note="x" * 3000)
outcomes = []
for limit in (0, 50, *range(100, 45_000, 1500)):
    site = path.parent / str(limit) / path.name
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with Ledger.open(site, **declared, create=True) as ledger:
            charge_it(ledger)
            released = True
    except LedgerError as error:
        assert "nothing was released: " in str(error), error
        released = False
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    with Ledger.open(site, **declared, create=True) as ledger:
        charges = len(ledger.entries())
        assert released <= charges <= 1, limit
        charge_it(ledger)
        assert ledger.verify().complete, limit
    assert len(list(site.parent.iterdir())) == 3, list(site.parent.iterdir())
    outcomes.append(released)
assert outcomes == sorted(outcomes), outcomes
print(sum(outcomes), len(outcomes))
"""
    made, tried = map(int, finish(python(script)).split())
    assert 0 < made < tried


def test_a_stored_answer_that_the_disk_has_no_room_for_is_not_released(
    open_ledger: Open, python: Python
) -> None:
    script = """
with open_ledger() as ledger:
    paid = charge(ledger, "q1")
    limit = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        ledger.store(paid, bytes(100_000), b"")
    except LedgerError as error:
        print(error)
"""
    open_ledger().close()
    assert "nothing was released: " in finish(python(script))
    with open_ledger() as ledger:
        assert len(ledger.entries()) == 1
        assert ledger.cached("q1") is None
        assert ledger.verify().complete


@pytest.fixture
def read_only(open_ledger: Open, path: Path) -> Iterator[Path]:
    """The ledger in a directory that everybody may enter and nobody may write."""
    open_ledger().close()
    # pytest's own directories keep other users out, and root has to become one.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file in (path, anchor_path(path), key_path(path)):
            shutil.copy(file, directory)
            (directory / file.name).chmod(0o400)
            if os.geteuid() == 0:
                os.chown(directory / file.name, NOBODY, NOBODY)
        directory.chmod(0o555)
        yield directory / path.name
        directory.chmod(0o700)


def test_a_ledger_that_cannot_be_written_refuses(read_only: Path, python: Python) -> None:
    script = f"""
if os.geteuid() == 0:
    os.seteuid({NOBODY})
path = Path({str(read_only)!r})
with open_ledger() as ledger:
    try:
        charge(ledger, "q1")
    except LedgerError as error:
        print(error)
"""
    assert "make the file and its directory writable" in finish(python(script))


def test_a_ledger_is_not_started_in_a_directory_that_cannot_be_written(
    read_only: Path, python: Python
) -> None:
    script = f"""
if os.geteuid() == 0:
    os.seteuid({NOBODY})
try:
    Ledger.open(Path({str(read_only)!r}).with_name("new.ledger.db"), population="patients",
                adjacency=Adjacency.ADD_REMOVE, unit=Unit.RECORD, create=True)
except LedgerError as error:
    print(error)
"""
    assert "nothing was released: check the disk and the permissions" in finish(python(script))
    assert not list(read_only.parent.glob("new*"))


def test_a_ledger_that_a_kill_left_with_a_journal_can_be_verified(
    open_ledger: Open, path: Path, python: Python
) -> None:
    """A reader that may not write cannot roll the journal back, and must not call it an edit."""
    script = """
from fedistill.privacy import ledger_file
with open_ledger() as ledger:
    ledger._connection.execute("PRAGMA cache_spill=1")
    ledger._connection.execute("PRAGMA cache_size=1")
    with ledger_file.transaction(ledger._connection):
        ledger._connection.execute("CREATE TABLE big (content BLOB)")
        ledger._connection.execute("INSERT INTO big VALUES (randomblob(500000))")
        os.kill(os.getpid(), signal.SIGKILL)
"""
    with open_ledger() as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    finish(python(script), code=-signal.SIGKILL)
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0
    result = verify(path)
    assert (result.complete, result.entries) == (True, 1), result.message


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
        with anchor_path(path).open("ab") as anchor:
            anchor.write(b"torn")  # so that it has to be written anew
        blocker = path.with_name(f"{path.name}.anchor.{os.getpid()}")
        blocker.mkdir()
        with pytest.raises(LedgerError, match="nothing was released"):
            ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
        blocker.rmdir()
        assert [entry.question for entry in ledger.entries()] == ["q1"]
