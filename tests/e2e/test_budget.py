"""One budget over several runs: `ledger-dir` keeps what every site has spent."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedistill.privacy.receipts import read_receipts
from fedistill.site import Policy
from tests.e2e.conftest import SITES, Flower, own_flower
from tests.e2e.ledgers import account, contents

pytestmark = pytest.mark.e2e

ANOTHER_QUESTION = "probe-steps=5"


@dataclass(frozen=True)
class Spent:
    """Three sites that have spent their whole budget on one run."""

    flower: Flower
    config: str
    run: Path
    ledgers: Path


@pytest.fixture(scope="module")
def spent(quick: str) -> Iterator[Spent]:
    with own_flower() as flower:
        run, ledgers = flower.folder / "first", flower.folder / "ledgers"
        config = f'{quick} ledger-dir="{ledgers}"'
        first = flower.simulate(f'{config} output-dir="{run}"')
        assert first.returncode == 0, first.stderr
        yield Spent(flower, config, run, ledgers)


def test_the_first_run_spends_the_budget(spent: Spent) -> None:
    receipts = read_receipts(spent.run / "receipts.jsonl")
    assert sorted(receipt.site for receipt in receipts) == list(SITES)
    for receipt in receipts:
        assert not receipt.cached
        assert 0.99 < receipt.total_epsilon <= 1.0
        assert receipt.remaining_epsilon < 0.01
    assert all(account(spent.ledgers / f"{site}.ledger.db").charges == 1 for site in SITES)


def test_the_same_question_again_gets_the_same_answers_for_nothing(spent: Spent) -> None:
    before = contents(spent.ledgers, "bank_*.ledger.db*")
    again = spent.flower.folder / "again"
    result = spent.flower.simulate(f'{spent.config} output-dir="{again}"')
    assert result.returncode == 0, result.stderr
    assert contents(spent.ledgers, "bank_*.ledger.db*") == before
    for receipt in read_receipts(again / "receipts.jsonl"):
        assert (receipt.cached, receipt.epsilon) == (True, 0.0)
        assert 0.99 < receipt.total_epsilon <= 1.0
    first, second = (
        json.loads((run / "checkpoints" / "round-1.json").read_text()) for run in (spent.run, again)
    )
    assert first["total"] == second["total"]


def test_another_question_is_refused_before_anything_starts(spent: Spent) -> None:
    before = contents(spent.ledgers)
    output = spent.flower.folder / "refused"
    result = spent.flower.simulate(f'{spent.config} {ANOTHER_QUESTION} output-dir="{output}"')
    assert result.returncode == 2
    assert result.stderr == (
        "fedistill: epsilon=1.0 must fit what bank_a has left: 1 of budget-epsilon=1 is spent in "
        f"{spent.ledgers / 'bank_a.ledger.db'}; raise budget-epsilon, or ask an answered question "
        "again, which costs nothing\n"
    )
    assert contents(spent.ledgers) == before
    assert not output.exists()


def test_a_finished_run_is_never_overwritten(spent: Spent) -> None:
    before = contents(spent.run)
    result = spent.flower.simulate(f'{spent.config} output-dir="{spent.run}"')
    assert result.returncode == 2
    assert result.stderr == (
        f"fedistill: output-dir='{spent.run}' already holds a finished run: choose another folder\n"
    )
    assert contents(spent.run) == before


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            'site-mechanisms="bank_b=vots"',
            "site-mechanisms='bank_b=vots', bank_b: mechanism='vots' must be a mechanism: did you "
            "mean 'votes'?",
        ),
        (
            'mechanism="sharded" teacher="fractions:Fraction"',
            "teacher='fractions:Fraction' makes a Fraction without fit and predict_proba",
        ),
    ],
)
def test_what_no_site_can_answer_changes_no_byte_of_a_ledger(
    spent: Spent, asked: str, words: str
) -> None:
    before = contents(spent.ledgers)
    output = spent.flower.folder / "bad"
    result = spent.flower.simulate(
        f'{spent.config} budget-epsilon=9.0 {asked} output-dir="{output}"'
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"fedistill: {words}")
    assert result.stderr.count("\n") == 1
    assert contents(spent.ledgers) == before
    assert not output.exists()


@pytest.mark.slow
def test_flwr_run_does_not_get_around_the_refusal(spent: Spent) -> None:
    before = contents(spent.ledgers)
    output = spent.flower.folder / "flwr"
    spent.flower.run(f'{spent.config} {ANOTHER_QUESTION} output-dir="{output}"')
    run = spent.flower.runs()[0]
    assert run["status"] == "finished:failed"
    assert "bank_a" in run["status-details"]
    assert "budget-epsilon=1 is spent" in run["status-details"]
    assert contents(spent.ledgers) == before


def test_a_server_that_claims_a_larger_budget_is_refused_by_the_sites(spent: Spent) -> None:
    """The site decides: its policy holds the budget, and the run config can only ask."""
    before = contents(spent.ledgers)
    output = spent.flower.folder / "claimed"
    shutil.copytree(spent.run / "sites", output / "sites")
    claim = f'{ANOTHER_QUESTION} budget-epsilon=9.0 output-dir="{output}"'
    spent.flower.run(f"{spent.config} {claim}")
    run = spent.flower.runs()[0]
    assert run["status"] == "finished:failed"
    assert "too few sites: 0 of 3 survived" in run["status-details"]
    for site in SITES:
        assert Policy.load(output / "sites" / site / "policy.toml").total_epsilon == 1.0
        refusal = f"{site} refused: its privacy budget does not hold the charge"
        assert refusal in run["status-details"]
    assert contents(spent.ledgers) == before
    assert not list(output.glob("checkpoints/round-*"))
    assert not (output / "receipts.jsonl").exists()
