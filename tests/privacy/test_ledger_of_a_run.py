"""`fedistill ledger` finds the ledgers of a run, by its name, its folder, or as the last one."""

import json
import os
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path
from fedistill.site import Policy
from tests.privacy.test_ledger_commands import fedistill, printed

SITES = ("bank_a", "bank_b")


def make_ledger(path: Path, *, charges: int = 1) -> None:
    with Ledger.open(
        path,
        population=f"customers of {path.name}",
        adjacency=Adjacency.ADD_REMOVE,
        unit=Unit.RECORD,
        create=True,
    ) as ledger:
        for number in range(charges):
            ledger.charge(f"q{number}", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)


def make_run(folder: Path, *, ledgers: Path | None = None, started: int = 0) -> Path:
    mark = folder / "checkpoints" / "run.json"
    mark.parent.mkdir(parents=True)
    mark.write_text("{}", encoding="utf-8")
    os.utime(mark, (started, started))
    for site in SITES:
        make_ledger((ledgers or folder) / f"{site}.ledger.db")
    if ledgers is not None:
        sites = {site: {} for site in SITES}
        summary = {"config": {"ledger-dir": str(ledgers)}, "privacy": {"sites": sites}}
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs" / "2000", started=1000)
    make_run(tmp_path / "runs" / "1000", started=2000)
    return tmp_path


@pytest.mark.parametrize("command", ["show", "verify", "budget"])
def test_all_ledgers_of_the_last_run_are_listed_unless_another_is_named(
    home: Path, command: str
) -> None:
    """Flower's run ids are random, so the last run is the one that was started last."""
    for asked, folder in (((), "1000"), (("--run", "2000"), "2000")):
        result = fedistill("ledger", command, *asked, "--format", "json", home=home)
        assert result.returncode == 0, result.stderr
        expected = [str(home / "runs" / folder / f"{site}.ledger.db") for site in SITES]
        assert [ledger["path"] for ledger in printed(result)] == expected


def test_a_run_may_be_named_by_its_folder(home: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "elsewhere")
    result = fedistill("ledger", "verify", "--run", folder, home=home)
    assert result.returncode == 0
    ledgers, receipts = result.stdout.splitlines()[::2], result.stdout.splitlines()[1::2]
    named = [str(folder / f"{site}.ledger.db") for site in SITES]
    assert [line.split(":")[0] for line in ledgers] == named
    assert [line.split(":")[0] for line in receipts] == named


def test_tables_of_several_ledgers_follow_one_another(home: Path) -> None:
    shown = fedistill("ledger", "show", home=home).stdout
    assert shown.index("customers of bank_a") < shown.index("customers of bank_b")
    rows = fedistill("ledger", "budget", home=home).stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["site", *SITES]


def test_lasting_ledgers_of_a_finished_run_are_found_in_their_folder(
    home: Path, tmp_path: Path
) -> None:
    lasting = tmp_path / "lasting"
    folder = make_run(tmp_path / "third", ledgers=lasting)
    result = fedistill("ledger", "verify", "--run", folder, home=home)
    assert result.returncode == 0
    assert str(lasting / "bank_b.ledger.db") in result.stdout


def test_a_run_s_ledger_that_is_gone_is_a_finding(home: Path) -> None:
    """PRIVACY rule 12."""
    gone = home / "runs" / "1000" / "bank_b.ledger.db"
    gone.unlink()
    assert anchor_path(gone).exists()
    result = fedistill("ledger", "verify", home=home)
    assert result.returncode == 1
    assert "bank_b.ledger.db: 0 charges: no ledger at" in result.stdout


def test_budget_of_a_run_is_at_the_policy_of_the_site(home: Path) -> None:
    policy = Policy(
        site="bank_a",
        population="p",
        rows_at_least=20,
        total_epsilon=2.0,
        epsilon_per_release=1.0,
        delta=1e-7,
        mechanisms=("dp-probe",),
        proxy_sha256=(),
    )
    policy.save(home / "runs" / "1000" / "sites" / "bank_a" / "policy.toml")
    first, second = printed(fedistill("ledger", "budget", "--format", "json", home=home))
    assert (first["budget_epsilon"], first["delta"]) == (2.0, 1e-7)
    assert (second["budget_epsilon"], second["delta"]) == (1.0, 1e-5)
    assert first["spent_epsilon"] > second["spent_epsilon"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "3000"), "--run=3000 must be a run's folder, or the name of one in"),
        (("a.ledger.db", "--run", "1000"), "name different ledgers: give one of them"),
        (("a.ledger.db", "--ledger", "b.ledger.db"), "are the same thing: give one of them"),
        (("--format", "xml"), "'xml' is not one of"),
    ],
)
def test_what_names_no_ledger_is_bad_input(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = fedistill("ledger", "budget", *arguments, home=home)
    assert result.returncode == 2
    assert message in result.stderr


def test_an_anchor_that_is_no_file_or_of_many_ledgers_is_bad_input(home: Path) -> None:
    ledger = home / "runs" / "1000" / "bank_a.ledger.db"
    many = fedistill("ledger", "verify", "--anchor", anchor_path(ledger), home=home)
    assert (many.returncode, "is of one ledger, not of 2" in many.stderr) == (2, True)
    none = fedistill("ledger", "verify", ledger, "--anchor", home / "kept", home=home)
    assert (none.returncode, "is no file" in none.stderr) == (2, True)


def test_a_home_without_runs_and_a_run_without_ledgers_are_bad_input(tmp_path: Path) -> None:
    empty = fedistill("ledger", "budget", home=tmp_path)
    assert empty.returncode == 2
    assert "there is no run in" in empty.stderr
    (tmp_path / "runs" / "5").mkdir(parents=True)
    none = fedistill("ledger", "budget", home=tmp_path)
    assert none.returncode == 2
    assert "has no ledger" in none.stderr
