"""The site's agent under attack: what a server may ask, and when a site may die."""

import json
import math
import os
import signal
import stat
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from fedistill.data import ProxySet, numbers
from fedistill.errors import BudgetExceeded, LedgerError, PolicyRefusal
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site, question_of
from fedistill.federation.up_front import prepare
from fedistill.labels import LabelQuestion
from fedistill.privacy.receipts import read_receipts
from fedistill.site import FloatNoise, LocalAgent, Policy, open_ledger
from tests.small import make_config


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, budget_epsilon=5.0)


@pytest.fixture
def agent(config) -> LocalAgent:
    return open_site(config, "bank_a", run_folder(config, "1"), "1")


@pytest.fixture
def question(config):
    return question_of(config, prepare(config))


def charges(agent: LocalAgent) -> int:
    with open_ledger(agent.policy, agent.ledger_path, create=True) as ledger:
        return len(ledger.entries())


def test_an_answer_is_charged_and_listed_on_a_receipt(agent, question) -> None:
    release = agent.labels(question)
    (receipt,) = read_receipts(agent.receipts_path)
    assert charges(agent) == 1
    assert 3.99 < receipt.epsilon <= 4.0
    assert receipt.total_epsilon == receipt.epsilon
    assert receipt.remaining_epsilon == pytest.approx(1.0, abs=0.01)
    assert receipt.bytes > release.codes.nbytes
    assert not receipt.cached


def test_the_same_question_gets_the_same_codes_for_nothing(agent, question) -> None:
    """PRIVACY rule 13."""
    first, second = agent.labels(question), agent.labels(question)
    np.testing.assert_array_equal(first.codes, second.codes)
    assert charges(agent) == 1
    assert [receipt.epsilon for receipt in read_receipts(agent.receipts_path)][1] == 0


IDENTIFYING = [field.name for field in fields(LabelQuestion) if field.name != "server_key"]
"""Who countersigns changes nothing about an answer: another key must not cost it twice."""


def next_to(field: str, value: object) -> object:
    """Another value, as near as may be: the next float, the next integer, another name."""
    names = {
        "mechanism": "clipped",
        "proxy_sha256": "0" * 64,
        "solver": "gradient",
        "answers": "confident",
        "trust": "secagg",
        "broadcast_sha256": "0" * 64,
        "run": "2",
        "cohort_sha256": "0" * 64,
    }
    if isinstance(value, float):
        return math.nextafter(value, 0.0) if value else math.nextafter(value, 1.0)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value - 1 if value > 1 else value + 1
    return names.get(field, "mlp")


@pytest.mark.parametrize("field", IDENTIFYING)
def test_a_near_miss_is_another_question(agent, question, field: str) -> None:
    """PRIVACY rule 13: no other field may be left out of what identifies a question."""
    missed = replace(question, **{field: next_to(field, getattr(question, field))})
    assert missed != question
    assert missed.sha256 != question.sha256
    assert replace(question).sha256 == question.sha256


def test_the_same_question_by_another_countersigner_is_answered_from_the_cache(
    agent, question
) -> None:
    first = agent.labels(question)
    again = agent.labels(replace(question, server_key="1" * 64))
    assert np.array_equal(again.codes, first.codes)
    assert [receipt.cached for receipt in read_receipts(agent.receipts_path)] == [False, True]


@pytest.mark.parametrize("field", IDENTIFYING)
def test_a_near_miss_is_charged_or_refused_and_never_answered_from_the_cache(
    agent, question, field: str
) -> None:
    """PRIVACY rule 13. Proxy set, classes and rows held out are the site's own: refused."""
    missed = replace(question, **{field: next_to(field, getattr(question, field))})
    clauses = {
        "mechanisms": (question.mechanism, missed.mechanism),
        "teachers": (question.teacher, missed.teacher),
        "total_epsilon": 50.0,
    }
    generous = replace(agent, policy=agent.policy.model_copy(update=clauses))
    first = generous.labels(question)
    if field in ("proxy_sha256", "num_classes", "trust", "holdout_fraction"):
        with pytest.raises(PolicyRefusal, match=field.replace("_", "[-_]")):
            generous.labels(missed)
        assert charges(generous) == 1
        return
    assert not np.array_equal(generous.labels(missed).codes, first.codes)
    assert charges(generous) == 2
    np.testing.assert_array_equal(generous.labels(question).codes, first.codes)
    assert charges(generous) == 2


def test_another_question_is_refused_once_the_budget_is_gone(agent, question) -> None:
    agent.labels(question)
    with pytest.raises(BudgetExceeded, match="budget"):
        agent.labels(replace(question, probe_steps=5))
    assert charges(agent) == 1


def test_a_smaller_question_may_still_fit(agent, question) -> None:
    agent.labels(question)
    agent.labels(replace(question, epsilon=0.5))
    receipts = read_receipts(agent.receipts_path)
    assert receipts[1].total_epsilon <= 5.0
    assert receipts[1].total_epsilon < receipts[0].epsilon + receipts[1].epsilon


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"proxy_sha256": "ab" * 32}, "proxy-sha256"),
        ({"epsilon": 4.5}, "epsilon-per-release"),
        ({"delta": 1e-4}, "delta"),
        ({"epsilon": float("nan")}, "epsilon-per-release"),
        ({"epsilon": 0.0}, "epsilon-per-release"),
        ({"delta": 0.0}, "delta"),
        ({"probe_steps": -1}, "probe-steps-at-most"),
        ({"probe_steps": 10**9}, "probe-steps-at-most"),
        ({"sgd_steps": 0}, "sgd-steps-at-most"),
        ({"sgd_steps": 10**9}, "sgd-steps-at-most"),
        ({"num_classes": 10**6}, "num_classes"),
        ({"mechanism": "none"}, "mechanism"),
    ],
)
def test_what_the_policy_forbids_is_refused_and_not_charged(
    agent, question, change, clause
) -> None:
    with pytest.raises(PolicyRefusal, match=clause):
        agent.labels(replace(question, **change))
    assert charges(agent) == 0


FLOATING = {"mechanism": "dp-sgd", "sgd_steps": 5}


@pytest.fixture
def permissive(agent) -> LocalAgent:
    """A site that names all mechanisms, and whose clause on floating-point noise is the default."""
    policy = agent.policy.model_copy(update={"mechanisms": ("dp-probe", "dp-sgd", "dp-ebm")})
    return replace(agent, policy=policy)


@pytest.mark.parametrize("mechanism", ["dp-sgd", "dp-ebm"])
def test_floating_point_noise_is_refused_unless_the_policy_allows_it(
    permissive, question, mechanism: str
) -> None:
    """PRIVACY rule 14; before anything is charged."""
    with pytest.raises(PolicyRefusal, match=f"float-noise=refuse must be allow: {mechanism}"):
        permissive.labels(replace(question, **FLOATING | {"mechanism": mechanism}))
    assert charges(permissive) == 0
    assert not permissive.receipts_path.exists()


def test_a_policy_that_allows_it_lets_it_answer_and_be_charged(permissive, question) -> None:
    allowed = permissive.policy.model_copy(update={"float_noise": FloatNoise.ALLOW})
    agent = replace(permissive, policy=allowed)
    asked = replace(question, **FLOATING)
    release = agent.labels(asked)
    np.testing.assert_array_equal(agent.labels(asked).codes, release.codes)
    assert charges(agent) == 1
    first, again = read_receipts(agent.receipts_path)
    assert 3.9 < first.epsilon <= 4.0
    assert again.epsilon == 0
    on_proxy = agent.evaluate(asked, agent.proxy)
    np.testing.assert_array_equal(on_proxy.codes, release.codes)


def test_the_clause_is_a_word_in_the_file_and_refuses_by_default(agent, tmp_path) -> None:
    path = tmp_path / "policy.toml"
    agent.policy.save(path)
    text = path.read_text()
    assert 'float-noise = "refuse"' in text
    path.write_text(text.replace('float-noise = "refuse"', ""))
    assert Policy.load(path).float_noise is FloatNoise.REFUSE
    path.write_text(text.replace('float-noise = "refuse"', 'float-noise = "yes"'))
    with pytest.raises(PolicyRefusal, match="float-noise"):
        Policy.load(path)


def test_no_policy_no_release(tmp_path) -> None:
    with pytest.raises(PolicyRefusal, match="no release without a policy"):
        Policy.load(tmp_path / "policy.toml")


def test_a_policy_with_an_unknown_clause_is_refused(agent, tmp_path) -> None:
    path = tmp_path / "policy.toml"
    agent.policy.save(path)
    path.write_text(path.read_text() + "total-epsilom = 99.0\n")
    with pytest.raises(PolicyRefusal, match="total-epsilom"):
        Policy.load(path)


def test_a_policy_survives_its_file_and_is_private(agent, tmp_path) -> None:
    path = tmp_path / "policy.toml"
    agent.policy.save(path)
    assert Policy.load(path) == agent.policy
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_test_rows_are_labelled_by_the_teacher_that_was_paid_for(agent, config, question) -> None:
    agent.labels(question)
    simulation = prepare(config)
    test_rows = simulation.test_rows
    answer = agent.evaluate(question, test_rows)
    assert answer.codes.shape == (len(test_rows.rows), 1)
    on_proxy = agent.evaluate(question, simulation.proxy)
    np.testing.assert_array_equal(on_proxy.codes, agent.labels(question).codes)
    assert charges(agent) == 1


def test_without_an_answer_there_is_no_teacher_to_ask(agent, question) -> None:
    rows = ProxySet(schema=numbers(agent.proxy.columns), rows=agent.proxy.rows[:5])
    with pytest.raises(PolicyRefusal, match="has not answered"):
        agent.evaluate(question, rows)


def test_noise_is_fresh_for_every_charge(tmp_path) -> None:
    answers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = make_config(tmp_path / name)
        agent = open_site(config, "bank_a", run_folder(config, "1"), "1")
        answers.append(agent.labels(question_of(config, prepare(config))).codes)
    assert (answers[0] != answers[1]).mean() > 0.9


def test_a_deleted_ledger_is_noticed(agent, question) -> None:
    """PRIVACY rule 12."""
    agent.labels(question)
    agent.ledger_path.unlink()
    with pytest.raises(LedgerError):
        agent.labels(replace(question, probe_steps=5))


KILLED = """
import json, os, signal, sys
from dataclasses import fields, replace
from fedistill import codec
from fedistill.config import RunConfig
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site, question_of
from fedistill.federation.up_front import prepare
from fedistill.mechanisms.dp_probe import DPProbe
from fedistill.privacy.ledger import Ledger
from fedistill.site import agent as module

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

config = RunConfig.from_flat(json.loads(sys.argv[1]))
agent = open_site(config, "bank_a", run_folder(config, "1"), "1")
point = sys.argv[2]
if point == "before the release":
    DPProbe.release = die
elif point == "before it is stored":
    Ledger.store = die
elif point == "before the receipt":
    module.append_receipt = die
agent.labels(question_of(config, prepare(config)))
die()
"""


@pytest.mark.parametrize(
    ("point", "answered"),
    [
        ("before the release", False),
        ("before it is stored", False),
        ("before the receipt", True),
        ("after the receipt", True),
    ],
)
def test_kill_9_never_leaves_a_release_without_its_charge(
    agent, config, question, point: str, answered: bool
) -> None:
    """Charge before release, never refund: a kill may waste budget, never overspend it."""
    script = [sys.executable, "-c", KILLED, json.dumps(config.to_flat()), point]
    died = subprocess.run(script, cwd=os.getcwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    assert charges(agent) == 1
    if answered:
        agent.labels(question)
        assert charges(agent) == 1
    else:
        with pytest.raises(BudgetExceeded):
            agent.labels(question)
        assert charges(agent) == 1
