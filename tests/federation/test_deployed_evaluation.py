"""Students scored on rows that deployed sites held out: real agents behind their sockets."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from fedistill.errors import ConfigError
from fedistill.federation.federated_evaluation import PHASE
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import evaluation_question
from fedistill.federation.up_front import prepare_deployment
from fedistill.privacy.receipts import read_receipts
from fedistill.site import Evaluation
from fedistill.site.approvals import Approvals, Decision
from fedistill.site.daemon import make_agent, serving
from fedistill.site.site_config import SiteConfig
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient
from tests import scored_students
from tests.deployed import SITES, write_federation
from tests.federation.test_deployment import run
from tests.scored_students import even_edges, student_sha256, student_to_bytes

pytestmark = pytest.mark.usefixtures("quick")

ALLOWING = {
    "evaluation": "allow",
    "holdout_fraction": 0.3,
    "epsilon_per_release": 8.0,
    "total_epsilon": 20.0,
}


@pytest.fixture
def started() -> Iterator:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder,
        ExitStack() as stack,
    ):

        def start(*, refusing: str = "", **clauses):
            sites, config = write_federation(Path(folder), **(ALLOWING | clauses))
            if refusing:
                policy = sites[refusing].policy()
                other = policy.model_copy(update={"evaluation": Evaluation.REFUSE})
                other.save(sites[refusing].folder / "policy.toml")
            for site in sites.values():
                stack.enter_context(serving(SiteConfig.load(site.config)))
            asked = {"holdout_fraction": 0.3, "evaluation_epsilon": 8.0}
            return sites, config.model_copy(update=asked)

        yield start


@pytest.fixture
def crossed(monkeypatch) -> list[tuple[str, str, bytes]]:
    """Method, status and message of every answer of a socket."""
    answers = []
    ask = SiteClient.ask

    def spy(client, method, request):
        status, message = ask(client, method, request)
        answers.append((method, status, message))
        return status, message

    monkeypatch.setattr(SiteClient, "ask", spy)
    return answers


def held_out(site):
    """The rows that a site keeps, as its agent finds them; nobody but a test sees them."""
    agent = make_agent(SiteConfig.load(site.config), site.policy())
    return agent.held_out(agent.unit_rows)


def check_scores(summary, config, sites) -> None:
    """The scores are those of the shipped file on held-out rows, but for noise."""
    from fedistill.compress import predict_file
    from fedistill.evaluate.metrics import score

    parts = [held_out(site) for site in sites.values()]
    rows, labels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "labels")
    )
    exact = score(predict_file(run_folder(config, "7").path / "student.onnx", rows), labels)
    found = summary.metrics.federated
    assert found.sites == SITES
    # Noise alone parts the two; five of the stated errors, which hold the rows' part besides.
    assert abs(found.accuracy - exact.accuracy) < 5 * found.accuracy_standard_error
    assert abs(found.auc - exact.auc) < 5 * found.auc_standard_error
    assert abs(found.units - len(labels)) < 5 * found.noise_std * np.sqrt(24)


def test_deployed_sites_score_the_shipped_student_in_a_sealed_round(started, crossed):
    sites, config = started()
    summary = run(config, sites)
    check_scores(summary, config, sites)
    assert [site.charges() for site in sites.values()] == [2, 2, 2]
    assert {method for method, _, _ in crossed} == {"Keys", "Shares", "Sealed", "Agree", "Unmask"}
    asked = summary.privacy.sites["bank_a"].epsilon
    scoring = read_receipts(sites["bank_a"].folder / "receipts.jsonl")[-1]
    assert "evaluation" in scoring.what
    assert 8.0 < asked < 12.0
    assert scoring.total_epsilon == pytest.approx(asked, rel=1e-6)
    report = run_folder(config, "7").report.read_text()
    assert "three sites held out, by noised counts" in report


def test_outside_a_sum_only_noised_counts_of_a_public_size_cross_the_socket(started, crossed):
    sites, config = started(secure_aggregation="optional")
    plain = config.model_copy(update={"secure_aggregation": False})
    summary = run(plain, sites)
    check_scores(summary, plain, sites)
    tables = [message for method, _, message in crossed if method == "Evaluate"]
    assert [len(table) for table in tables] == [24 * 8] * 3
    stored = json.loads(run_folder(plain, "7").checkpoint(f"{PHASE}.json").read_text())["sites"]
    for site, table in zip(SITES, tables, strict=True):
        assert np.frombuffer(table, "<i8").tolist() == stored[site]
    assert [site.charges() for site in sites.values()] == [2, 2, 2]


def test_the_default_policy_refuses_to_score_and_the_run_goes_on(started):
    sites, config = started(evaluation="refuse")
    summary = run(config, sites)
    assert summary.metrics.federated is None
    assert summary.metrics.student.auc > 0.7
    assert any("its policy forbids the question" in text for text in summary.warnings)
    assert any("no score on held-out rows" in text for text in summary.warnings)
    assert [site.charges() for site in sites.values()] == [1, 1, 1]


def test_a_site_that_refuses_is_left_out_of_the_scores_alone(started):
    sites, config = started(refusing="bank_b")
    summary = run(config, sites)
    assert summary.metrics.federated.sites == ("bank_a", "bank_c")
    assert tuple(summary.privacy.sites) == SITES
    assert [site.charges() for site in sites.values()] == [2, 1, 2]


def test_a_server_cannot_have_rows_learned_from_that_the_policy_holds_out(started):
    sites, config = started()
    all_rows = config.model_copy(update={"holdout_fraction": 0.0})
    with pytest.raises(Exception, match="its policy forbids the question"):
        run(all_rows, sites)
    assert [site.charges() for site in sites.values()] == [0, 0, 0]


def test_a_student_waits_for_the_owner_as_labels_do(started):
    sites, config = started(approval="by-hand")
    queues = [Approvals(site.folder / "approvals") for site in sites.values()]

    def approve_all():
        for wanted in ("dp-probe", "evaluation"):
            for queue in queues:
                while wanted not in [entry.question.mechanism for entry in queue.entries()]:
                    time.sleep(0.05)
                queue.decide("1", Decision.APPROVED)

    owner = threading.Thread(target=approve_all)
    owner.start()
    summary = run(config, sites)
    owner.join()
    assert summary.metrics.federated.sites == SITES
    assert [site.charges() for site in sites.values()] == [2, 2, 2]


def scoring(config, student: bytes, **changes) -> agent_pb2.Scoring:
    """The question how `student` does, at bank_a."""
    named = {"broadcast_sha256": student_sha256(student)}
    question = replace(evaluation_question(config, prepare_deployment(config)), **(named | changes))
    asked = agent_pb2.Question(site="bank_a", run="1", question=json.dumps(asdict(question)))
    return agent_pb2.Scoring(question=asked, student=student)


def test_an_approval_is_for_one_student(started):
    sites, config = started(approval="by-hand", secure_aggregation="optional")
    site = sites["bank_a"]
    one, other = (
        student_to_bytes(scored_students.softmax_student(), edges)
        for edges in (even_edges(), even_edges() / 2)
    )
    with SiteClient(site.socket) as client:
        assert client.ask("Evaluate", scoring(config, one)) == ("waiting", b"")
        Approvals(site.folder / "approvals").decide("1", Decision.APPROVED)
        assert client.ask("Evaluate", scoring(config, other)) == ("waiting", b"")
    assert site.charges() == 0


@pytest.mark.parametrize(
    "student",
    [
        scored_students.with_weights_elsewhere,
        scored_students.with_chance,
        scored_students.with_a_branch,
        scored_students.with_divided_integers,
        scored_students.with_sizes_of_a_row,
        scored_students.with_many_numbers,
        lambda: b"no student",
        lambda: b"",
    ],
)
def test_what_is_no_student_is_refused_on_the_socket_and_costs_nothing(started, student):
    sites, config = started(secure_aggregation="optional")
    bad = student_to_bytes(student(), even_edges())
    with SiteClient(sites["bank_a"].socket) as client:
        assert client.ask("Evaluate", scoring(config, bad)) == ("policy", b"")
        assert client.hello()[0] == "bank_a"
    assert sites["bank_a"].charges() == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"broadcast_sha256": "0" * 64}, "policy"),
        ({"mechanism": "dp-probe"}, "policy"),
        ({"holdout_fraction": 0.2}, "policy"),
        ({"epsilon": 8.5}, "policy"),
        ({"epsilon": -1.0}, "policy"),
        ({"delta": 1e-3}, "policy"),
        ({"num_classes": 3}, "policy"),
        ({"num_classes": 1}, "policy"),
        ({"proxy_sha256": "0" * 64}, "policy"),
        ({"epsilon": "8"}, "no-answer"),
    ],
)
def test_another_question_than_the_policy_allows_costs_nothing(started, changes, status):
    sites, config = started(secure_aggregation="optional")
    good = student_to_bytes(scored_students.softmax_student(), even_edges())
    with SiteClient(sites["bank_a"].socket) as client:
        assert client.ask("Evaluate", scoring(config, good, **changes)) == (status, b"")
    assert sites["bank_a"].charges() == 0


def test_tables_outside_a_sum_are_refused_where_the_policy_requires_sums(started):
    sites, config = started()
    plain = config.model_copy(update={"secure_aggregation": False})
    good = student_to_bytes(scored_students.softmax_student(), even_edges())
    with SiteClient(sites["bank_a"].socket) as client:
        assert client.ask("Evaluate", scoring(plain, good)) == ("policy", b"")
    assert sites["bank_a"].charges() == 0


def test_a_coordinator_that_asks_what_no_site_can_score_is_told_before_anyone_is_asked(started):
    _, config = started()
    bad = config.model_copy(update={"mechanism": "clipped-site"})
    with pytest.raises(ConfigError, match=r"holdout-fraction=0\.3 must be 0 with mechanism='clip"):
        prepare_deployment(bad)
    dear = config.model_copy(update={"evaluation_epsilon": 1e-7})
    with pytest.raises(ConfigError, match=r"evaluation-epsilon=1e-07: .* raise epsilon"):
        prepare_deployment(dear)
