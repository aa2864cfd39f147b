"""`fedistill ledger`: reading a ledger on the command line."""

import json
import os
import shutil
import sqlite3
import subprocess
import sysconfig
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import ZCDpEvent

from fedistill.errors import BudgetExceeded
from fedistill.privacy.accountant import calibrate_rho, epsilon_of, within_budget
from fedistill.privacy.adjacency import Adjacency
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path
from fedistill.privacy.ledger_budget import Alone
from tests.privacy.edits import edit

Finished = subprocess.CompletedProcess[str]
COMMAND = Path(sysconfig.get_path("scripts")) / "fedistill"


def fedistill(*arguments: str | Path, home: Path | None = None) -> Finished:
    environment = {**os.environ, "COLUMNS": "80", "FEDISTILL_HOME": str(home or "nowhere")}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=environment)


def printed(result: Finished) -> list[dict[str, Any]]:
    """What `--format json` says of each ledger."""
    ledgers: list[dict[str, Any]] = json.loads(result.stdout)["ledgers"]
    return ledgers


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
    assert "entry 1 was edited: its hash does not match" in result.stdout


def test_verify_fails_on_a_ledger_that_is_gone(ledger: Path) -> None:
    ledger.unlink()
    assert fedistill("ledger", "verify", ledger).returncode == 1


@pytest.mark.parametrize("command", ["show", "verify", "budget"])
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
    fedistill("ledger", "budget", ledger)
    assert (ledger.read_bytes(), anchor_path(ledger).read_bytes()) == before


def test_show_prints_all_that_an_entry_says_as_json(ledger: Path) -> None:
    (shown,) = printed(fedistill("ledger", "show", ledger, "--format", "json"))
    assert (shown["path"], shown["site"]) == (str(ledger), "bank_a")
    assert (shown["population"], shown["adjacency"], shown["unit"]) == (
        *("patients", "add-remove"),
        "record",
    )
    assert len(bytes.fromhex(shown["public_key"])) == 32
    first, second = shown["charges"]
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert first["event"]["kind"] == "zcdp"
    assert first["description"] == {"mechanism": "dp-probe"}
    assert second["spent_epsilon"] == pytest.approx(0.7276, abs=1e-4)
    assert len(bytes.fromhex(first["signature"])) == 64


def test_verify_prints_its_finding_as_json(ledger: Path) -> None:
    (found,) = printed(fedistill("ledger", "verify", "--format", "json", "--ledger", ledger))
    receipts = found.pop("receipts")
    assert (receipts["valid"], receipts["count"], receipts["countersigned"]) == (True, 0, 0)
    assert "no receipt is later than entry 0 of 2" in receipts["message"]
    assert found == {
        "path": str(ledger),
        "site": "bank_a",
        "valid": True,
        "complete": True,
        "entries": 2,
        "message": "valid, and complete as far as bank_a.ledger.db.anchor can tell",
    }
    ledger.unlink()
    gone = fedistill("ledger", "verify", ledger, "--format", "json")
    assert gone.returncode == 1
    assert printed(gone)[0]["valid"] is False


def test_verify_sees_ledger_and_anchor_rewound_together_against_a_kept_anchor(
    open_ledger: Callable[..., Ledger], ledger: Path, tmp_path: Path
) -> None:
    """PRIVACY rule 12."""
    files = (ledger, anchor_path(ledger))
    before = [file.read_bytes() for file in files]
    with open_ledger() as opened:
        opened.charge("q3", {}, ZCDpEvent(1e-6), budget_epsilon=1.0, delta=1e-5)
    kept = shutil.copy(anchor_path(ledger), tmp_path / "kept")
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)
    assert fedistill("ledger", "verify", ledger).returncode == 0
    result = fedistill("ledger", "verify", ledger, "--anchor", kept)
    assert result.returncode == 1
    assert "entry 3 is missing" in result.stdout


def test_budget_prints_what_is_spent_and_left(ledger: Path) -> None:
    result = fedistill("ledger", "budget", "--ledger", ledger)
    assert result.returncode == 0
    heading, row = result.stdout.splitlines()
    assert heading.split() == ["site", "charges", "budget", "spent", "left", "next", "delta"]
    assert row.split() == ["bank_a", "2", "1", "0.7276", "0.2724", "0.6431", "1e-05"]


def test_budget_prints_nothing_as_left_where_rounding_leaves_a_trace(
    open_ledger: Callable[..., Ledger], path: Path
) -> None:
    with open_ledger() as opened:
        event = ZCDpEvent(calibrate_rho(1.0, 1e-5))
        opened.charge("q1", {}, event, budget_epsilon=1.0, delta=1e-5)
    row = fedistill("ledger", "budget", path).stdout.splitlines()[1]
    assert row.split() == ["bank_a", "1", "1", "1", "0", "0", "1e-05"]


def test_budget_shows_the_other_view_where_noise_was_shared(
    open_ledger: Callable[..., Ledger], path: Path
) -> None:
    """PRIVACY rule 11: what the server learns, and what all other sites together would."""
    rho = calibrate_rho(1.0, 1e-5)
    with open_ledger() as opened:
        alone = Alone(event=ZCDpEvent(2 * rho), budget_epsilon=2.0)
        opened.charge("q1", {}, ZCDpEvent(rho), budget_epsilon=1.0, delta=1e-5, alone=alone)
        with pytest.raises(BudgetExceeded, match="all other sites colluding"):
            opened.charge(
                "q2",
                {},
                ZCDpEvent(rho / 1e3),
                budget_epsilon=3.0,
                delta=1e-5,
                alone=Alone(event=ZCDpEvent(2 * rho), budget_epsilon=1.5),
            )
    heading, row = fedistill("ledger", "budget", path).stdout.splitlines()
    columns = ["site", "charges", "budget", "spent", "pooled", "left", "next", "delta"]
    assert heading.split() == columns
    pooled = epsilon_of(ZCDpEvent(2 * rho), 1e-5, Adjacency.ADD_REMOVE)
    assert row.split()[:5] == ["bank_a", "1", "1", "1", f"{pooled:.4g}"]
    (found,) = printed(fedistill("ledger", "budget", path, "--format", "json"))
    assert found["alone_epsilon"] == pytest.approx(pooled)
    assert fedistill("ledger", "verify", path).returncode == 0


def test_budget_in_json_is_the_accountant_s(ledger: Path) -> None:
    """The largest next question fits exactly, and a slightly larger one does not."""
    (found,) = printed(fedistill("ledger", "budget", ledger, "--format", "json"))
    events = [ZCDpEvent(calibrate_rho(0.5, 1e-5))] * 2
    spent = epsilon_of(events, 1e-5, Adjacency.ADD_REMOVE)
    assert found["spent_epsilon"] == pytest.approx(spent, rel=1e-12)
    assert found["remaining_epsilon"] == pytest.approx(1.0 - spent, rel=1e-9)
    assert (found["charges"], found["delta"], found["complete"]) == (2, 1e-5, True)
    limits: dict[str, Any] = {"budget_epsilon": 1.0, "delta": 1e-5}
    limits["adjacency"] = Adjacency.ADD_REMOVE
    largest = found["largest_question_epsilon"]
    assert within_budget(events, ZCDpEvent(calibrate_rho(largest, 1e-5)), **limits)
    assert not within_budget(events, ZCDpEvent(calibrate_rho(largest + 1e-4, 1e-5)), **limits)


def test_budget_does_not_add_up_an_edited_ledger(ledger: Path) -> None:
    edit(ledger, "DELETE FROM charges WHERE sequence = 1")
    result = fedistill("ledger", "budget", ledger)
    assert result.returncode == 1
    assert "is not valid, so nobody can add up: entry 1 is missing" in result.stderr


def test_budget_without_the_anchor_says_that_charges_may_be_missing(ledger: Path) -> None:
    anchor_path(ledger).unlink()
    result = fedistill("ledger", "budget", ledger)
    assert result.returncode == 0
    assert "prefix valid, completeness unknown" in result.stdout


def test_a_ledger_without_charges_has_no_budget_to_print(
    open_ledger: Callable[..., Ledger], path: Path
) -> None:
    open_ledger().close()
    result = fedistill("ledger", "budget", path)
    assert result.returncode == 1
    assert "has no charge that names its budget" in result.stderr
