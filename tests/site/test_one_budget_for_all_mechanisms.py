"""One ledger over runs, mechanisms and teachers, until its budget is spent (PRIVACY rules 9 to 11).

What a charge must be is computed apart from the accountant: every question is calibrated to its own
epsilon, its rho is the inverse of the best conversion, and rho adds up.
"""

from itertools import count
from pathlib import Path

import pytest

from fedistill.data import ProxySet
from fedistill.errors import BudgetExceeded, LedgerError
from fedistill.labels import LabelQuestion
from fedistill.privacy.receipts import read_receipts
from fedistill.site import LocalAgent, Policy, open_ledger
from tests.mechanisms.toy import ask, make_proxy, make_rows
from tests.privacy.oracles import best_epsilon, best_rho

BUDGET, DELTA = 2.0, 1e-5

KINDS: tuple[dict[str, object], ...] = (
    {"mechanism": "dp-probe", "epsilon": 0.5},
    {"mechanism": "sharded", "epsilon": 0.4, "teacher": "logistic", "shards": 6, "queries": 20},
    {"mechanism": "votes", "epsilon": 0.3, "cells": 4},
    {"mechanism": "sharded", "epsilon": 0.7, "answers": "confident", "shards": 6, "queries": 20},
    {"mechanism": "clipped", "epsilon": 0.2, "teacher": "mlp"},
    {"mechanism": "sharded", "epsilon": 0.6, "teacher": "mlp", "shards": 6, "queries": 20},
)


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy(120)


def site_of(folder: Path, proxy: ProxySet, run: int, population: str = "customers") -> LocalAgent:
    """The agent of one run; ledger and population last."""
    return LocalAgent(
        run=str(run),
        policy=Policy(
            site="bank_a",
            population=population,
            rows_at_least=20,
            total_epsilon=BUDGET,
            epsilon_per_release=BUDGET,
            delta=DELTA,
            mechanisms=("dp-probe", "sharded", "votes", "clipped"),
            teachers=("", "logistic", "mlp"),
            proxy_sha256=(proxy.sha256,),
        ),
        rows=make_rows(150 + run),  # rows come in between the runs, and reset nothing
        proxy=proxy,
        ledger_path=folder / "bank_a.ledger.db",
        receipts_path=folder / "receipts.jsonl",
    )


def question(proxy: ProxySet, number: int) -> LabelQuestion:
    """A new question in every run."""
    kind = dict(KINDS[number % len(KINDS)])
    mechanism = str(kind.pop("mechanism"))
    return ask(proxy, mechanism, probe_steps=2 + number // len(KINDS), **kind)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_charge_is_what_independent_composition_says_and_the_last_is_refused(
    tmp_path, proxy
) -> None:
    spent_rho, answered = 0.0, []
    whole = best_rho(BUDGET, DELTA)
    for run in count():
        asked = question(proxy, run)
        rho = best_rho(asked.epsilon, DELTA)
        if spent_rho + rho > whole:
            break
        site_of(tmp_path, proxy, run).labels(asked)
        spent_rho += rho
        answered.append(asked)
        receipt = read_receipts(tmp_path / "receipts.jsonl")[-1]
        assert receipt.epsilon == pytest.approx(asked.epsilon, rel=1e-4)
        assert receipt.epsilon <= asked.epsilon
        assert receipt.total_epsilon == pytest.approx(best_epsilon(spent_rho, DELTA), rel=1e-4)
        assert receipt.remaining_epsilon == pytest.approx(BUDGET - receipt.total_epsilon)
    assert len(answered) > len(KINDS)
    assert {each.mechanism for each in answered} == {"dp-probe", "sharded", "votes", "clipped"}

    before = contents(tmp_path)
    with pytest.raises(BudgetExceeded, match="Nothing was charged"):
        site_of(tmp_path, proxy, run).labels(asked)
    assert contents(tmp_path) == before
    with open_ledger(
        site_of(tmp_path, proxy, 0).policy, tmp_path / "bank_a.ledger.db", create=False
    ) as ledger:
        assert [charge.question for charge in ledger.entries()] == [q.sha256 for q in answered]
        assert ledger.spent(DELTA) <= BUDGET

    site_of(tmp_path, proxy, run).labels(answered[0])
    assert read_receipts(tmp_path / "receipts.jsonl")[-1].cached


def test_a_second_population_does_not_share_the_first_ones_ledger(tmp_path, proxy) -> None:
    """PRIVACY rule 10: the budget is keyed by the population that the policy declares."""
    site_of(tmp_path, proxy, 0).labels(question(proxy, 0))
    before = contents(tmp_path)
    with pytest.raises(LedgerError, match="population"):
        site_of(tmp_path, proxy, 1, population="staff").labels(question(proxy, 1))
    assert contents(tmp_path) == before
