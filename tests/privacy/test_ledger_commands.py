"""`fedistill ledger`: reading a ledger on the command line."""

import os
import sqlite3
import subprocess
import sysconfig
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.chain import anchor_path
from fedistill.privacy.ledger import Ledger

COMMAND = Path(sysconfig.get_path("scripts")) / "fedistill"


def fedistill(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    wide = {**os.environ, "COLUMNS": "80"}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=wide)


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger], path: Path) -> Path:
    with open_ledger() as opened:
        for question in ("0123456789abcdef", "fedcba9876543210"):
            event = ZCDpEvent(calibrate_rho(0.5, 1e-5))
            what = {"mechanism": "dp-probe"}
            opened.charge(question, what, event, budget_epsilon=1.0, delta=1e-5)
    return path


def test_show_lists_what_was_spent_on_what(ledger: Path) -> None:
    result = fedistill("ledger", "show", ledger)
    assert result.returncode == 0
    assert "population patients, add-remove of one record" in result.stdout
    rows = [line.split()[2:] for line in result.stdout.splitlines() if "dp-probe" in line]
    assert rows == [
        ["dp-probe", "0123456789ab", "0.5", "0.5", "1", "1e-05"],
        ["dp-probe", "fedcba987654", "0.5", "0.7276", "1", "1e-05"],
    ]


def test_verify_finds_an_untouched_ledger_valid(ledger: Path) -> None:
    result = fedistill("ledger", "verify", ledger)
    assert result.returncode == 0
    assert "2 charges: valid, and complete" in result.stdout


def test_verify_without_the_anchor_vouches_for_the_prefix_only(ledger: Path) -> None:
    """PRIVACY rule 12."""
    anchor_path(ledger).unlink()
    result = fedistill("ledger", "verify", ledger)
    assert result.returncode == 0
    assert "prefix valid, completeness unknown" in result.stdout


def test_verify_fails_on_an_edited_ledger(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("DROP TRIGGER charges_no_UPDATE")
        connection.execute("UPDATE charges SET entry = replace(entry, 'dp-probe', 'votes')")
        connection.commit()
    result = fedistill("ledger", "verify", ledger)
    assert result.returncode == 1
    assert "edited" in result.stdout


def test_verify_fails_on_a_ledger_that_is_gone(ledger: Path) -> None:
    ledger.unlink()
    assert fedistill("ledger", "verify", ledger).returncode == 1


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_path_without_a_ledger_is_bad_input(command: str, tmp_path: Path) -> None:
    result = fedistill("ledger", command, tmp_path / "nothing.db")
    assert result.returncode == 2
    assert "nothing.db is no ledger: give the path" in result.stderr


def test_show_of_a_file_that_is_no_ledger_fails(path: Path) -> None:
    path.write_text("not a ledger\n" * 100, encoding="utf-8")
    result = fedistill("ledger", "show", path)
    assert result.returncode == 1
    assert "not a database" in result.stderr


def test_reading_changes_nothing(ledger: Path) -> None:
    before = ledger.read_bytes(), anchor_path(ledger).read_bytes()
    fedistill("ledger", "show", ledger)
    fedistill("ledger", "verify", ledger)
    assert (ledger.read_bytes(), anchor_path(ledger).read_bytes()) == before
