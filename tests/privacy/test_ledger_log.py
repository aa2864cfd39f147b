"""The write-ahead log of an open ledger: whoever reads counts it, and its loss shows."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.errors import BudgetExceeded, LedgerError
from fedistill.privacy import ledger_file
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path, read_anchor
from fedistill.privacy.ledger_file import log_path, read
from fedistill.privacy.ledger_key import key_path
from fedistill.privacy.ledger_verify import verify
from tests.e2e.ledgers import contents
from tests.privacy.conftest import PRELUDE

NOBODY = 65534
Open = Callable[..., Ledger]
Python = Callable[[str], "subprocess.Popen[str]"]


def charge(ledger: Ledger, question: str) -> None:
    made = ledger.charge(question, {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    ledger.store(made, question.encode(), b"teacher")


@pytest.fixture
def killed(ledger_of_three: Path, python: Python) -> Path:
    """A ledger of three that charged two more and was killed: they are in its log alone."""
    script = """
with open_ledger() as ledger:
    for question in ("q4", "q5"):
        ledger.store(charge(ledger, question, epsilon=0.01), question.encode(), b"teacher")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = python(script)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == -signal.SIGKILL
    assert log_path(ledger_of_three).stat().st_size > 0
    return ledger_of_three


def test_what_a_kill_left_in_the_log_is_read_and_verified_and_stays_there(killed: Path) -> None:
    files = (killed, log_path(killed), anchor_path(killed))
    before = [file.read_bytes() for file in files]
    result = verify(killed)
    assert (result.valid, result.complete, result.entries) == (True, True, 5), result.message
    assert [entry.question for entry in read(killed).charges][3:] == ["q4", "q5"]
    assert [file.read_bytes() for file in files] == before


def test_what_a_kill_left_in_the_log_is_answered_and_charged_after(
    killed: Path, open_ledger: Open
) -> None:
    with open_ledger() as ledger:
        assert len(ledger.entries()) == 5
        stored = ledger.cached("q5")
        assert stored is not None
        assert stored.release == b"q5"
        charge(ledger, "q6")
    assert set(killed.parent.iterdir()) == {killed, anchor_path(killed), key_path(killed)}
    assert (verify(killed).complete, verify(killed).entries) == (True, 6)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_log_deleted_or_cut_is_behind_its_anchor(
    killed: Path, open_ledger: Open, keep: float
) -> None:
    log = log_path(killed)
    if keep:
        os.truncate(log, int(keep * log.stat().st_size))
    else:
        log.unlink()
    found = verify(killed)
    # A cut in the last answer spares its charge; without the answer nothing was released.
    if keep < 0.9:
        assert "it is behind its anchor" in found.message
        with pytest.raises(LedgerError, match="behind its anchor"):
            open_ledger()
    else:
        assert found.entries == 5
        assert found.complete


def test_a_log_that_was_damaged_lowers_nothing(killed: Path, open_ledger: Open) -> None:
    whole = log_path(killed).read_bytes()
    for position in range(0, len(whole), 2477):
        flipped = bytearray(whole)
        flipped[position] ^= 0xFF
        log_path(killed).write_bytes(flipped)
        killed.with_name(f"{killed.name}-shm").unlink(missing_ok=True)
        found = verify(killed)
        assert not found.valid or found.entries == 5, position


def test_a_copy_of_the_database_alone_lacks_what_is_in_the_log(
    ledger_of_three: Path, open_ledger: Open, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    with open_ledger() as ledger:
        charge(ledger, "q4")
        for file in (ledger_of_three, anchor_path(ledger_of_three)):
            shutil.copy(file, copies)
    found = verify(copies / ledger_of_three.name)
    assert "(3 charges, the anchor saw 4): entry 4 is missing" in found.message
    anchor_path(copies / ledger_of_three.name).unlink()
    found = verify(copies / ledger_of_three.name)
    assert (found.valid, found.complete, found.entries) == (True, None, 3)


def test_an_open_ledger_is_read_by_others(ledger_of_three: Path, open_ledger: Open) -> None:
    with open_ledger() as ledger:
        charge(ledger, "q4")
        assert (verify(ledger_of_three).complete, verify(ledger_of_three).entries) == (True, 4)
        charge(ledger, "q5")
        assert len(read(ledger_of_three).entries) == 5


def test_what_another_process_charged_in_between_is_noticed(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    with open_ledger() as one, open_ledger() as other:
        for number in range(3):
            charge(one, f"one{number}")
            charge(other, f"other{number}")
        assert len(one.entries()) == len(other.entries()) == 9
    assert verify(ledger_of_three).complete
    assert not log_path(ledger_of_three).exists()


def test_a_budget_is_shared_with_another_process_that_has_it_open(open_ledger: Open) -> None:
    with open_ledger() as one, open_ledger() as other:
        event = ZCDpEvent(0.01)
        one.charge("a", {}, event, budget_epsilon=0.7, delta=1e-5)
        with pytest.raises(BudgetExceeded):
            other.charge("b", {}, event, budget_epsilon=0.7, delta=1e-5)


def test_a_ledger_that_only_answers_and_refuses_changes_no_byte(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    before = contents(ledger_of_three.parent)
    with open_ledger() as ledger:
        assert ledger.cached("q2") is not None
        with pytest.raises(BudgetExceeded):
            ledger.charge("q9", {}, ZCDpEvent(1.0), budget_epsilon=1.0, delta=1e-5)
    assert contents(ledger_of_three.parent) == before


def test_a_long_lived_ledger_keeps_log_and_anchor_small(path: Path, open_ledger: Open) -> None:
    with open_ledger() as ledger:
        for number in range(300):
            ledger.charge(str(number), {}, ZCDpEvent(1e-6), budget_epsilon=1.0, delta=1e-5)
        assert log_path(path).stat().st_size < 6_000_000
        assert anchor_path(path).stat().st_size <= 128 * 512
        assert verify(path).complete


@pytest.fixture
def read_only(killed: Path) -> Iterator[Path]:
    """The killed ledger with its log, in a directory that nobody may write."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file in (killed, log_path(killed), anchor_path(killed)):
            shutil.copy(file, directory)
            (directory / file.name).chmod(0o400)
            if os.geteuid() == 0:
                os.chown(directory / file.name, NOBODY, NOBODY)
        directory.chmod(0o555)
        yield directory / killed.name
        directory.chmod(0o700)


def test_a_log_is_counted_where_nothing_can_be_written(read_only: Path, python: Python) -> None:
    script = f"""
if os.geteuid() == 0:
    os.seteuid({NOBODY})
from fedistill.privacy.ledger_file import read
from fedistill.privacy.ledger_verify import verify
path = Path({str(read_only)!r})
print(verify(path).complete, verify(path).entries, len(read(path).entries))
"""
    process = python(script)
    out, err = process.communicate(timeout=120)
    assert out == "True 5 5\n", err
    assert len(list(read_only.parent.iterdir())) == 3


def test_without_shared_memory_a_ledger_charges_by_its_journal(
    path: Path, open_ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite answers `delete` to a request for a log where the file system cannot have one."""
    monkeypatch.setattr(ledger_file, "begin_log", lambda *_: None)
    with open_ledger() as ledger:
        charge(ledger, "q1")
        assert not log_path(path).exists()
        assert verify(path).complete


@pytest.mark.skipif(shutil.which("strace") is None, reason="seeing the order needs strace")
def test_the_anchor_is_on_disk_before_the_release_is_stored(
    path: Path, open_ledger: Open, tmp_path: Path
) -> None:
    """Else a power cut could leave an answer that left, and an anchor that never saw its charge."""
    open_ledger().close()
    script = f"""{PRELUDE}
with open_ledger() as ledger:
    made = charge(ledger, "q")
    os.access("/now-store", 0)
    ledger.store(made, b"release", b"teacher")
    os.access("/now-close", 0)
"""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,access,faccessat"
    traced = ["strace", "-f", "-y", "-e", calls, "-o", trace, sys.executable, "-c", script, path]
    subprocess.run(traced, check=True)
    _, _, rest = trace.read_text().partition("/now-store")
    synced = [line for line in rest.partition("/now-close")[0].splitlines() if "sync(" in line]
    assert [".anchor>" in line for line in synced] == [True, False]
    assert read_anchor(path).count == 1  # type: ignore[union-attr]
