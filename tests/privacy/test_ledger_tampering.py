"""A ledger that was edited, cut short, replaced or damaged is found out. PRIVACY rule 12."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.errors import LedgerError
from fedistill.privacy.chain import Anchor, anchor_path, read_anchor, write_anchor
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_file import verify

Open = Callable[..., Ledger]


@pytest.fixture
def ledger_of_three(open_ledger: Open, path: Path) -> Path:
    with open_ledger() as ledger:
        for question in ("q1", "q2", "q3"):
            event = ZCDpEvent(0.001)
            made = ledger.charge(question, {}, event, budget_epsilon=1.0, delta=1e-5)
            ledger.store(made, question.encode(), b"teacher")
    return path


def edit(path: Path, *statements: str) -> None:
    """What somebody with a SQLite client and no scruples can do: drop the triggers first."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET hash = ''",
        "DELETE FROM charges",
        "INSERT OR REPLACE INTO charges SELECT 3, entry, hash FROM charges WHERE sequence = 1",
        "INSERT INTO charges SELECT 7, entry, hash FROM charges WHERE sequence = 1",
        "UPDATE header SET entry = '{}'",
        "DELETE FROM header",
        "INSERT OR REPLACE INTO header VALUES (1, '{}')",
        "UPDATE releases SET release = x''",
        "DELETE FROM releases",
        "INSERT OR REPLACE INTO releases SELECT 1, x'', x'', '' FROM releases",
    ],
)
def test_the_database_itself_refuses_all_but_appending(
    ledger_of_three: Path, statement: str
) -> None:
    with (
        closing(sqlite3.connect(ledger_of_three)) as connection,
        pytest.raises(sqlite3.IntegrityError),
    ):
        connection.execute(statement)
    assert verify(ledger_of_three).valid


def test_an_untouched_ledger_is_valid_and_complete(ledger_of_three: Path) -> None:
    result = verify(ledger_of_three)
    assert (result.valid, result.complete, result.entries) == (True, True, 3)
    assert "valid, and complete as far as" in result.message


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET entry = replace(entry, '0.001', '0.0001') WHERE sequence = 2",
        "DELETE FROM charges WHERE sequence = 2",
        "DELETE FROM charges WHERE sequence = 3",
        "DELETE FROM charges",
        "UPDATE header SET entry = replace(entry, 'patients', 'customers')",
        "UPDATE charges SET sequence = 4 - sequence WHERE sequence != 2",
    ],
)
def test_an_edit_behind_its_back_is_found(
    ledger_of_three: Path, open_ledger: Open, statement: str
) -> None:
    if "4 - sequence" in statement:
        edit(
            ledger_of_three,
            "UPDATE charges SET sequence = 9 WHERE sequence = 1",
            "UPDATE charges SET sequence = 1 WHERE sequence = 3",
            "UPDATE charges SET sequence = 3 WHERE sequence = 9",
        )
    else:
        edit(ledger_of_three, statement)
    assert not verify(ledger_of_three).valid
    with pytest.raises(LedgerError, match=r"edited|behind its anchor|not the one"):
        open_ledger()


def test_an_older_copy_is_behind_its_anchor(open_ledger: Open, path: Path, tmp_path: Path) -> None:
    with open_ledger() as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
        shutil.copy(path, tmp_path / "copy")
        ledger.charge("q2", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    shutil.copy(tmp_path / "copy", path)
    assert "behind its anchor (1 charges, the anchor saw 2)" in verify(path).message
    with pytest.raises(LedgerError, match="behind its anchor"):
        open_ledger()


def test_an_older_copy_put_back_under_an_open_ledger_charges_nothing(
    open_ledger: Open, ledger_of_three: Path
) -> None:
    with open_ledger() as ledger:
        edit(ledger_of_three, "DELETE FROM releases", "DELETE FROM charges WHERE sequence = 3")
        with pytest.raises(LedgerError, match="behind its anchor"):
            ledger.charge("q4", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
        with pytest.raises(LedgerError, match="behind its anchor"):
            ledger.spent(1e-5)


def test_a_deleted_ledger_is_missed_by_its_anchor(ledger_of_three: Path, open_ledger: Open) -> None:
    ledger_of_three.unlink()
    result = verify(ledger_of_three)
    assert not result.valid
    assert "anchor of 3 charges is there" in result.message
    with pytest.raises(LedgerError, match=r"is missing, though its anchor .* saw 3 charges"):
        open_ledger()
    assert not ledger_of_three.exists()


def test_a_fresh_ledger_does_not_pass_for_an_emptied_one(open_ledger: Open, path: Path) -> None:
    open_ledger().close()
    anchor = anchor_path(path).read_bytes()
    path.unlink()
    anchor_path(path).unlink()
    open_ledger().close()
    anchor_path(path).write_bytes(anchor)
    with pytest.raises(LedgerError, match="charge 0 is not the one its anchor saw"):
        open_ledger()


def test_without_its_anchor_only_the_prefix_is_known(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    anchor_path(ledger_of_three).unlink()
    result = verify(ledger_of_three)
    assert (result.valid, result.complete, result.entries) == (True, None, 3)
    assert result.message.startswith("prefix valid, completeness unknown")
    with pytest.raises(LedgerError, match="its anchor is missing"):
        open_ledger()


def test_a_ledger_ahead_of_its_anchor_is_a_crash_in_between(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    with open_ledger() as ledger:
        second = ledger.entries()[1]
    anchor = json.dumps({"count": 2, "head": second.hash})
    anchor_path(ledger_of_three).write_text(anchor, encoding="utf-8")
    with open_ledger() as ledger:
        ledger.charge("q4", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    anchored = read_anchor(ledger_of_three)
    assert anchored is not None
    assert anchored.count == 4


def test_an_older_anchor_never_replaces_a_newer(ledger_of_three: Path) -> None:
    newest = read_anchor(ledger_of_three)
    write_anchor(ledger_of_three, Anchor(count=2, head="0" * 64))
    assert read_anchor(ledger_of_three) == newest


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"count": "3", "head": ""}', "\x00"])
def test_a_damaged_anchor_is_refused(ledger_of_three: Path, open_ledger: Open, text: str) -> None:
    anchor_path(ledger_of_three).write_text(text, encoding="utf-8")
    assert not verify(ledger_of_three).valid
    with pytest.raises(LedgerError, match=r"anchor .* cannot be read"):
        open_ledger()


@pytest.mark.parametrize("keep", [0, 100, 5000, 20_000])
def test_a_file_cut_short_is_refused(ledger_of_three: Path, open_ledger: Open, keep: int) -> None:
    whole = ledger_of_three.read_bytes()
    assert len(whole) > keep
    ledger_of_three.write_bytes(whole[:keep])
    assert not verify(ledger_of_three).valid
    with pytest.raises(LedgerError, match=r"restore|Restore|check"):
        open_ledger()


def test_a_file_that_is_no_database_is_refused(path: Path, open_ledger: Open) -> None:
    path.write_text("epsilon\n0.5\n" * 500, encoding="utf-8")
    with pytest.raises(LedgerError, match="not a database"):
        open_ledger()
    assert path.read_text(encoding="utf-8").startswith("epsilon")


def test_a_database_of_something_else_is_refused(path: Path, open_ledger: Open) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
        connection.commit()
    with pytest.raises(LedgerError, match="no such table: header"):
        open_ledger()


def test_an_edited_answer_is_not_given_again(ledger_of_three: Path, open_ledger: Open) -> None:
    edit(ledger_of_three, "UPDATE releases SET release = x'00' WHERE sequence = 2")
    result = verify(ledger_of_three)
    assert not result.valid
    assert "charges [2]" in result.message
    with open_ledger() as ledger, pytest.raises(LedgerError, match="answer to q2 was edited"):
        ledger.cached("q2")


def test_no_flipped_byte_ever_lowers_what_was_spent(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    whole = ledger_of_three.read_bytes()
    with open_ledger() as ledger:
        entries = ledger.entries()
    for position in range(0, len(whole), 331):
        flipped = bytearray(whole)
        flipped[position] ^= 0xFF
        ledger_of_three.write_bytes(flipped)
        verify(ledger_of_three)
        with suppress(LedgerError), open_ledger() as ledger:
            assert ledger.entries() == entries
