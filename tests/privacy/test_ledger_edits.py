"""An entry or an answer that somebody edited is found, and named. PRIVACY rule 12."""
# ruff: noqa: S608

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fedistill.errors import LedgerError
from fedistill.privacy.chain import link
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path, read_anchor, write_anchor
from fedistill.privacy.ledger_file import read
from fedistill.privacy.ledger_verify import verify
from tests.privacy.edits import edit

Open = Callable[..., Ledger]
REST = "entry, event, hash, signature"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET hash = ''",
        "DELETE FROM charges",
        f"INSERT OR REPLACE INTO charges SELECT 3, {REST} FROM charges WHERE sequence = 1",
        f"INSERT INTO charges SELECT 7, {REST} FROM charges WHERE sequence = 1",
        "UPDATE header SET entry = '{}'",
        "DELETE FROM header",
        "INSERT OR REPLACE INTO header VALUES (1, '{}', '')",
        "UPDATE releases SET release = x''",
        "DELETE FROM releases",
        "INSERT OR REPLACE INTO releases SELECT 1, x'', x'', '', '' FROM releases",
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


RHO = "replace({}, '0.001', '0.0001')"


@pytest.mark.parametrize(
    ("statements", "finding"),
    [
        (
            [f"UPDATE charges SET entry = {RHO.format('entry')} WHERE sequence = 2"],
            "entry 2 was edited: its hash does not match",
        ),
        (
            [f"UPDATE charges SET event = {RHO.format('event')} WHERE sequence = 2"],
            "entry 2 was edited: its column event is not its text's event",
        ),
        (
            ["UPDATE charges SET hash = replace(hash, 'a', 'b') WHERE sequence = 3"],
            "entry 3 was edited: its hash does not match",
        ),
        (
            ["UPDATE charges SET signature = '00' WHERE sequence = 1"],
            "entry 1 was edited or added: the site's key did not sign it",
        ),
        (["DELETE FROM charges WHERE sequence = 1"], "entry 1 is missing: 2 follows 0"),
        (["DELETE FROM charges WHERE sequence = 2"], "entry 2 is missing: 3 follows 1"),
        (
            ["DELETE FROM charges WHERE sequence = 3"],
            r"behind its anchor \(2 charges, the anchor saw 3\): entry 3 is missing",
        ),
        (["DELETE FROM charges"], r"behind its anchor .*: entries 1 to 3 are missing"),
        (
            ["UPDATE header SET entry = replace(entry, 'patients', 'customers')"],
            "entry 0, the header, was edited",
        ),
        (["UPDATE header SET signature = ''"], "entry 0, the header, was edited"),
        (
            [
                "UPDATE charges SET sequence = 9 WHERE sequence = 1",
                "UPDATE charges SET sequence = 1 WHERE sequence = 3",
                "UPDATE charges SET sequence = 3 WHERE sequence = 9",
            ],
            "entry 1 was edited: its hash does not match",
        ),
        (
            [f"INSERT INTO charges SELECT 4, {REST} FROM charges WHERE sequence = 3"],
            "entry 4 was edited: its hash does not match",
        ),
    ],
)
def test_an_edit_behind_its_back_is_found_and_the_entry_named(
    ledger_of_three: Path, open_ledger: Open, statements: list[str], finding: str
) -> None:
    edit(ledger_of_three, *statements)
    result = verify(ledger_of_three)
    assert not result.valid
    assert re.search(finding, result.message), result.message
    with pytest.raises(LedgerError, match=finding):
        open_ledger()


def test_an_entry_that_is_rehashed_without_the_key_is_found(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    """The chain and the anchor are computed anew: only the signatures cannot be."""
    contents = read(ledger_of_three)
    previous, statements = contents.hash_of(0), []
    for entry in contents.entries:
        text, event = (each.replace("0.001", "0.0001") for each in (entry.text, entry.event))
        previous = link(previous, text)
        statements.append(
            f"UPDATE charges SET entry = '{text}', event = '{event}', hash = '{previous}'"
            f" WHERE sequence = {entry.sequence}"
        )
    edit(ledger_of_three, *statements)
    anchor = read_anchor(ledger_of_three)
    assert anchor is not None
    anchor_path(ledger_of_three).unlink()
    write_anchor(ledger_of_three, replace(anchor, head=previous))
    assert "entry 1 was edited or added: the site's key did not" in verify(ledger_of_three).message
    with pytest.raises(LedgerError, match="entry 1 was edited or added"):
        open_ledger()


@pytest.mark.parametrize(
    "column", ["release = x'00'", "teacher = x'00'", "sha256 = ''", "signature = ''"]
)
def test_an_edited_answer_is_not_given_again(
    ledger_of_three: Path, open_ledger: Open, column: str
) -> None:
    edit(ledger_of_three, f"UPDATE releases SET {column} WHERE sequence = 2")
    result = verify(ledger_of_three)
    assert not result.valid
    assert result.message == "the stored release of entry 2 was edited"
    with open_ledger() as ledger, pytest.raises(LedgerError, match="to q2, entry 2, was edited"):
        ledger.cached("q2")


def test_an_answer_moved_to_another_charge_is_not_given(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    """Its digest is right and its signature real, but for another question's charge."""
    rest = "release, teacher, sha256, signature"
    edit(
        ledger_of_three,
        "DELETE FROM releases WHERE sequence = 2",
        f"INSERT INTO releases SELECT 2, {rest} FROM releases WHERE sequence = 3",
    )
    assert verify(ledger_of_three).message == "the stored release of entry 2 was edited"
    with open_ledger() as ledger, pytest.raises(LedgerError, match="to q2, entry 2, was edited"):
        ledger.cached("q2")


def test_an_answer_to_no_charge_is_found(ledger_of_three: Path) -> None:
    edit(ledger_of_three, "INSERT INTO releases SELECT 9, x'', x'', '', '' FROM header")
    assert "for entry 9, which does not exist" in verify(ledger_of_three).message
