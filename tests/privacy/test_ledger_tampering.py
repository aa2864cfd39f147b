"""A ledger that was edited, cut short, replaced or damaged is found out. PRIVACY rule 12."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.errors import LedgerError
from fedistill.privacy.chain import Anchor
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path, read_anchor, write_anchor
from fedistill.privacy.ledger_file import read
from fedistill.privacy.ledger_key import key_path, load_key
from fedistill.privacy.ledger_verify import verify
from tests.privacy.edits import edit

Open = Callable[..., Ledger]


def test_an_untouched_ledger_is_valid_and_complete(ledger_of_three: Path) -> None:
    result = verify(ledger_of_three)
    assert (result.valid, result.complete, result.entries) == (True, True, 3)
    assert "valid, and complete as far as" in result.message


def test_a_ledger_that_is_cut_with_its_anchor_rewritten_is_found(ledger_of_three: Path) -> None:
    """Whoever lacks the key can shorten the chain, but has no signed anchor that says so."""
    contents = read(ledger_of_three)
    edit(
        ledger_of_three,
        "DELETE FROM releases WHERE sequence = 3",
        "DELETE FROM charges WHERE sequence = 3",
    )
    anchor = read_anchor(ledger_of_three)
    assert anchor is not None
    anchor_path(ledger_of_three).unlink()
    write_anchor(ledger_of_three, replace(anchor, count=2, head=contents.hash_of(2)))
    result = verify(ledger_of_three)
    assert not result.valid
    assert "its anchor was edited" in result.message


def test_a_ledger_of_another_key_is_not_this_site_s(
    open_ledger: Open, path: Path, ledger_of_three: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with open_ledger(path=other / path.name) as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    for file in (path, anchor_path(path)):
        shutil.copy(other / file.name, file)
    assert verify(path).valid
    with pytest.raises(LedgerError, match="has public_key="):
        open_ledger()
    shutil.copy(other / path.name, path)
    anchor_path(path).unlink()
    write_anchor(path, Anchor.sign(load_key(key_path(path)), count=0, head=read(path).hash_of(0)))
    assert "names another public key than entry 0" in verify(path).message


def test_ledger_and_anchor_restored_together_are_found_by_a_copy_of_the_anchor(
    open_ledger: Open, path: Path, tmp_path: Path
) -> None:
    """Both are from one snapshot, so they agree: only what was kept elsewhere can tell."""
    files = (path, anchor_path(path))
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    with open_ledger() as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    for file in files:
        shutil.copy(file, snapshot)
    with open_ledger() as ledger:
        ledger.charge("q2", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    kept = shutil.copy(anchor_path(path), tmp_path / "kept.anchor")
    assert (
        verify(path, anchor_file=kept).message
        == "valid, and complete as far as kept.anchor can tell"
    )
    for file in files:
        shutil.copy(snapshot / file.name, file)
    assert verify(path).valid
    result = verify(path, anchor_file=kept)
    assert not result.valid
    assert "(1 charges, the anchor saw 2): entry 2 is missing" in result.message


def test_an_older_anchor_does_not_vouch_for_a_ledger_that_forked(
    open_ledger: Open, path: Path, tmp_path: Path
) -> None:
    """A snapshot that went on charging is a chain of its own: the old anchor saw another entry."""
    with open_ledger() as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    snapshot = shutil.copy(path, tmp_path / "snapshot")
    old = shutil.copy(anchor_path(path), tmp_path / "old.anchor")
    with open_ledger() as ledger:
        ledger.charge("q2", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    kept = shutil.copy(anchor_path(path), tmp_path / "kept.anchor")
    shutil.copy(snapshot, path)
    shutil.copy(old, anchor_path(path))
    with open_ledger() as ledger:
        ledger.charge("q3", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    shutil.copy(kept, anchor_path(path))
    assert "entry 2 is not the one its anchor saw" in verify(path).message
    with pytest.raises(LedgerError, match="entry 2 is not the one its anchor saw"):
        open_ledger()


def test_an_older_copy_is_behind_its_anchor(open_ledger: Open, path: Path, tmp_path: Path) -> None:
    with open_ledger() as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    shutil.copy(path, tmp_path / "copy")
    with open_ledger() as ledger:
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
    assert "anchor of 3 charges is there: entries 0 to 3 are missing" in result.message
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
    with pytest.raises(LedgerError, match="entry 0 is not the one its anchor saw"):
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
    anchor_path(ledger_of_three).unlink()
    key = load_key(key_path(ledger_of_three))
    write_anchor(ledger_of_three, Anchor.sign(key, count=2, head=second.hash))
    with open_ledger() as ledger:
        ledger.charge("q4", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    anchored = read_anchor(ledger_of_three)
    assert anchored is not None
    assert anchored.count == 4


def test_an_older_anchor_never_replaces_a_newer(ledger_of_three: Path) -> None:
    newest = read_anchor(ledger_of_three)
    key = load_key(key_path(ledger_of_three))
    write_anchor(ledger_of_three, Anchor.sign(key, count=2, head="0" * 64))
    assert read_anchor(ledger_of_three) == newest


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "\x00", '{"count": 3}'),
        '{"count": "3", "head": "", "public_key": "", "signature": ""}',
        '{"count": -1, "head": "", "public_key": "", "signature": ""}',
        '{"count": 3, "head": 0, "public_key": "", "signature": ""}',
        '{"count": 3, "head": "", "public_key": "", "signature": "", "more": ""}',
    ],
)
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
    found = verify(ledger_of_three)
    assert not found.valid
    assert "not read: entries 0 to 3" in found.message
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


@pytest.mark.parametrize("what", ["ledger", "anchor"])
def test_a_file_of_the_format_without_signatures_is_refused(
    ledger_of_three: Path, open_ledger: Open, what: str
) -> None:
    if what == "ledger":
        ledger_of_three.unlink()
        edit(
            ledger_of_three,
            "CREATE TABLE header (id INTEGER PRIMARY KEY, entry TEXT)",
            """INSERT INTO header VALUES (1, '{"format":"1","id":"","population":"patients"}')""",
        )
    else:
        anchor_path(ledger_of_three).write_text('{"count":0,"head":""}', encoding="utf-8")
    assert "has format 1, this version reads format 2: use" in verify(ledger_of_three).message
    with pytest.raises(LedgerError, match="start a ledger of its own and take what the old one"):
        open_ledger()


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
