"""`fedistill ledger`: reading a ledger on the command line."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.cli.entry import run
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.chain import anchor_path
from fedistill.privacy.ledger import Ledger

# Typer's own import, under newer versions of Click.
pytestmark = pytest.mark.filterwarnings("ignore:'click.utils:DeprecationWarning")


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger], path: Path) -> Path:
    with open_ledger() as opened:
        for question in ("0123456789abcdef", "fedcba9876543210"):
            event = ZCDpEvent(calibrate_rho(0.5, 1e-5))
            what = {"mechanism": "dp-probe"}
            opened.charge(question, what, event, budget_epsilon=1.0, delta=1e-5)
    return path


def test_show_lists_what_was_spent_on_what(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["ledger", "show", str(ledger)]) == 0
    shown = capsys.readouterr().out
    assert "population patients, add-remove of one record" in shown
    first, second = (line for line in shown.splitlines() if "dp-probe" in line)
    assert "0123456789ab" in first
    assert "0.5" in first
    assert "fedcba987654" in second
    assert "0.7276" in second


def test_verify_finds_an_untouched_ledger_valid(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ledger", "verify", str(ledger)]) == 0
    assert "2 charges: valid, and complete" in capsys.readouterr().out


def test_verify_without_the_anchor_vouches_for_the_prefix_only(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PRIVACY rule 12."""
    anchor_path(ledger).unlink()
    assert run(["ledger", "verify", str(ledger)]) == 0
    assert "prefix valid, completeness unknown" in capsys.readouterr().out


def test_verify_fails_on_an_edited_ledger(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("DROP TRIGGER charges_no_UPDATE")
        connection.execute("UPDATE charges SET entry = replace(entry, 'dp-probe', 'votes')")
        connection.commit()
    assert run(["ledger", "verify", str(ledger)]) == 1
    assert "edited" in capsys.readouterr().out


def test_verify_fails_on_a_ledger_that_is_gone(ledger: Path) -> None:
    ledger.unlink()
    assert run(["ledger", "verify", str(ledger)]) == 1


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_path_without_a_ledger_is_bad_input(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ledger", command, str(tmp_path / "nothing.db")]) == 2
    assert "nothing.db is no ledger" in capsys.readouterr().err


def test_show_of_a_file_that_is_no_ledger_fails(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("not a ledger\n" * 100, encoding="utf-8")
    assert run(["ledger", "show", str(path)]) == 1
    assert "not a database" in capsys.readouterr().err


def test_reading_changes_nothing(ledger: Path) -> None:
    before = ledger.read_bytes(), anchor_path(ledger).read_bytes()
    run(["ledger", "show", str(ledger)])
    run(["ledger", "verify", str(ledger)])
    assert (ledger.read_bytes(), anchor_path(ledger).read_bytes()) == before
