"""A site that is asked to score a student: what it refuses, what it pays, what it gives."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from fedistill.data import ProxySet
from fedistill.errors import BudgetExceeded, PolicyRefusal
from fedistill.mechanisms import dp_probe
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.receipts import read_receipts
from fedistill.site import Evaluation, LocalAgent, Sealing, evaluating, holding_out, open_ledger
from tests import scored_students
from tests.mechanisms.toy import ask, make_proxy
from tests.scored_students import evaluation_of, even_edges, sent, softmax_student
from tests.site.toy_site import contents, toy_site

ALLOWING = {"evaluation": Evaluation.ALLOW, "holdout_fraction": 0.3}


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy(120)


def site(folder, proxy: ProxySet, **clauses: object) -> LocalAgent:
    return toy_site(folder, proxy, **(ALLOWING | clauses))


def charges(agent: LocalAgent) -> int:
    with open_ledger(agent.policy, agent.ledger_path, create=True) as ledger:
        return len(ledger.entries())


def test_an_evaluation_is_charged_and_listed_on_a_receipt(tmp_path, proxy) -> None:
    agent = site(tmp_path, proxy)
    found = evaluating.evaluate(agent, evaluation_of(proxy, sent()), sent())
    (receipt,) = read_receipts(agent.receipts_path)
    assert charges(agent) == 1
    assert 0.499 < receipt.epsilon <= 0.5
    assert receipt.bytes == found.counts.nbytes == 24 * 8
    assert receipt.what == "24 counts of an evaluation as 64-bit integers"


def test_the_same_question_gets_the_same_counts_for_nothing(tmp_path, proxy) -> None:
    """PRIVACY rule 13; and another student is another question."""
    agent, asked = site(tmp_path, proxy), evaluation_of(proxy, sent())
    first, second = (evaluating.evaluate(agent, asked, sent()) for _ in range(2))
    np.testing.assert_array_equal(first.counts, second.counts)
    assert charges(agent) == 1
    other = sent()[: len(even_edges()[0]) * 8] + softmax_student(axis=0)
    evaluating.evaluate(agent, evaluation_of(proxy, other), other)
    assert charges(agent) == 2


def test_the_charge_is_on_disk_before_a_row_is_read(tmp_path, proxy, monkeypatch) -> None:
    """Promise 4: whoever dies while counting has paid."""

    class DiesError(BaseException):
        pass

    def die(*_):
        raise DiesError

    monkeypatch.setattr(evaluating, "noised_tables", die)
    agent = site(tmp_path, proxy)
    with pytest.raises(DiesError):
        evaluating.evaluate(agent, evaluation_of(proxy, sent()), sent())
    assert charges(agent) == 1


def test_only_held_out_rows_are_scored_and_only_the_others_learned_from(
    tmp_path, proxy, monkeypatch
) -> None:
    agent, seen = site(tmp_path, proxy), {}

    def spy(name, module, place):
        real = getattr(module, name)

        def listening(*args, **named):
            seen[name] = args[place]
            return real(*args, **named)

        monkeypatch.setattr(module, name, listening)

    spy("noised_tables", evaluating, 0)
    release = dp_probe.DPProbe.release
    monkeypatch.setattr(
        dp_probe.DPProbe,
        "release",
        lambda self, rows, *rest: seen.update(labels=rows) or release(self, rows, *rest),
    )
    agent.labels(ask(proxy, "dp-probe", epsilon=0.5, holdout_fraction=0.3))
    evaluating.evaluate(agent, evaluation_of(proxy, sent()), sent())
    parts = holding_out.hold_out(agent.unit_rows, 0.3, agent.identity)
    np.testing.assert_array_equal(seen["labels"].rows, parts.learned_from.rows)
    np.testing.assert_array_equal(seen["noised_tables"].rows, parts.held_out.rows)
    assert 20 < len(parts.held_out.rows) < 75


REFUSED = {
    "a policy that says nothing of evaluation": (
        {"evaluation": Evaluation.REFUSE},
        {},
        "evaluation=refuse must be allow",
    ),
    "nothing held out": ({"holdout_fraction": 0.0}, {"holdout_fraction": 0.0}, "above 0"),
    "another share held out": ({}, {"holdout_fraction": 0.2}, "holdout-fraction=0.2 must be 0.3"),
    "a dearer answer than one may be": ({}, {"epsilon": 2.5}, "epsilon-per-release=2.5"),
    "another proxy set": ({}, {"proxy_sha256": "ab" * 32}, "proxy-sha256"),
    "other classes": ({}, {"num_classes": 3}, "num_classes=3 must be 2"),
    "a whole site to be hidden": ({"unit": Unit.SITE}, {}, "unit=site must be what evaluation"),
    "no sum": (
        {"secure_aggregation": Sealing.REQUIRED},
        {},
        "secure-aggregation=required must be met",
    ),
    "shared noise": ({}, {"trust": "secagg", "min_honest_sites": 2}, "trust=secagg must be none"),
    "a mechanism for labels": ({}, {"mechanism": "dp-probe"}, "must be 'evaluation'"),
    "a large file": ({"student_bytes_at_most": 99}, {}, "student-bytes-at-most=[0-9]+ must be"),
    "another file": ({}, {"broadcast_sha256": "0" * 64}, "must be that of the student"),
    "no file named": ({}, {"broadcast_sha256": ""}, "must be that of the student"),
}


@pytest.mark.parametrize("stays_open", [False, True])
@pytest.mark.parametrize(("clauses", "asked", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_costs_nothing_and_leaves_no_trace(
    tmp_path, proxy, clauses, asked, words, stays_open
) -> None:
    agent = site(tmp_path, proxy, **clauses)
    with agent if stays_open else nullcontext(), pytest.raises(PolicyRefusal, match=words):
        evaluating.evaluate(agent, evaluation_of(proxy, sent(), **asked), sent())
    assert list(tmp_path.iterdir()) == []


BAD_STUDENTS = (
    scored_students.with_weights_elsewhere,
    scored_students.with_chance,
    scored_students.with_a_branch,
    scored_students.of_another_domain,
    scored_students.with_a_function,
    scored_students.with_divided_integers,
    scored_students.with_sizes_of_a_row,
    scored_students.with_many_numbers,
)


@pytest.mark.parametrize("student", BAD_STUDENTS)
def test_a_student_that_must_not_run_changes_no_byte(tmp_path, proxy, student) -> None:
    agent = site(tmp_path, proxy)
    evaluating.evaluate(agent, evaluation_of(proxy, sent()), sent())
    before = contents(tmp_path)
    bad = scored_students.student_to_bytes(student(), even_edges())
    with pytest.raises(PolicyRefusal, match="student"):
        evaluating.evaluate(agent, evaluation_of(proxy, bad), bad)
    assert contents(tmp_path) == before


def test_a_spent_budget_gives_nothing(tmp_path, proxy) -> None:
    agent = site(tmp_path, proxy, total_epsilon=1.0)
    agent.labels(ask(proxy, "dp-probe", epsilon=0.99, holdout_fraction=0.3))
    before = contents(tmp_path)
    with pytest.raises(BudgetExceeded, match="budget"):
        evaluating.evaluate(agent, evaluation_of(proxy, sent()), sent())
    assert contents(tmp_path) == before


def test_labels_of_all_rows_are_refused_where_rows_are_held_out(tmp_path, proxy) -> None:
    agent = site(tmp_path, proxy)
    with pytest.raises(PolicyRefusal, match=r"holdout-fraction=0\.0 must be 0\.3"):
        agent.labels(ask(proxy, "dp-probe"))
    assert list(tmp_path.iterdir()) == []


def test_the_name_is_no_mechanism_for_labels(tmp_path, proxy) -> None:
    agent = site(tmp_path, proxy, mechanisms=("evaluation",))
    with pytest.raises(PolicyRefusal, match="mechanism='evaluation' must be a mechanism"):
        agent.labels(evaluation_of(proxy, sent()))


def test_a_unit_has_one_vote_whatever_its_rows(tmp_path, proxy) -> None:
    agent = site(tmp_path, proxy, unit=Unit.GROUP, total_epsilon=99.0, epsilon_per_release=60.0)
    units = np.arange(150) // 5
    agent = replace(agent, rows=replace(agent.rows, units=units))
    found = evaluating.evaluate(agent, evaluation_of(proxy, sent(), epsilon=50.0), sent())
    plan = evaluating.planned_evaluation(agent, evaluation_of(proxy, sent(), epsilon=50.0), 1)
    with agent:
        held = holding_out.hold_out(agent.unit_rows, 0.3, agent.identity).held_out
    votes = found.counts.sum() * plan.vectors[0].divisor / 2**16
    assert votes == pytest.approx(held.num_units, abs=2)
