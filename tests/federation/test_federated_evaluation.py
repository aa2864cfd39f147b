"""Federated evaluation with real messages, site by site and in a sealed round."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedistill.config import RunConfig
from fedistill.errors import ConfigError, DataError
from fedistill.evaluate.metrics import score
from fedistill.evaluate.summary import read_summary
from fedistill.federation import evaluation_messages, messages, sealed_messages
from fedistill.federation.federated_evaluation import PHASE
from fedistill.federation.run_folder import ledger_path, run_folder
from fedistill.federation.simulation import evaluation_question, open_site, prepare_data
from fedistill.federation.up_front import prepare
from fedistill.labels import EvaluationRelease, SoftLabels
from fedistill.mechanisms.sent_student import student_sha256, student_to_bytes
from fedistill.privacy.receipts import read_receipts
from fedistill.site import open_ledger
from fedistill.site.holding_out import hold_out
from tests.federation.conftest import Spy, run, server_of
from tests.scored_students import even_edges, softmax_student
from tests.small import make_config, visits_config

pytestmark = pytest.mark.usefixtures("quick")

STUDENT = evaluation_messages.STUDENT


def scoring_config(tmp_path, **changes) -> RunConfig:
    fixed = {
        "prune_ratio": 0.0,
        "quantize": "none",
        "phase_timeout": 3.0,
        "holdout_fraction": 0.4,
        "evaluation_epsilon": 8.0,
    }
    return make_config(tmp_path, **(fixed | changes))


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return scoring_config(tmp_path)


@pytest.fixture
def sealed(tmp_path) -> RunConfig:
    return scoring_config(tmp_path, secure_aggregation=True)


def charges(config, site: str) -> list[str]:
    """What the site's ledger was charged for."""
    path = ledger_path(config, run_folder(config, "1"), site)
    if not path.exists():
        return []
    with (
        open_site(config, site, run_folder(config, "1"), "1") as agent,
        open_ledger(agent.policy, path, create=False) as ledger,
    ):
        return [charge.description["mechanism"] for charge in ledger.entries()]


def held_out_scores(config):
    """What the shipped file scores on all held-out rows, which nobody but this test sees."""
    from fedistill.compress import predict_file

    simulation, folder = prepare_data(config), run_folder(config, "1")
    parts = []
    for site in simulation.sites:
        with open_site(config, site, folder, "1") as agent:
            parts.append(hold_out(agent.unit_rows, 0.4, agent.identity).held_out)
    rows = np.concatenate([part.rows for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return score(predict_file(folder.path / "student.onnx", rows), labels), len(labels)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"secure_aggregation": True},
        {"secure_aggregation": True, "trust": "secagg", "solver": "moment"},
        {"secure_aggregation": True, "mechanism": "corrections", "rounds": 2},
    ],
    ids=["site by site", "sealed", "shared noise", "after rounds"],
)
def test_the_scores_are_those_of_the_shipped_file_on_held_out_rows(tmp_path, changes) -> None:
    config = scoring_config(tmp_path, **changes)
    summary = run(config)
    found = summary.metrics.federated
    exact, units = held_out_scores(config)
    assert found.sites == ("bank_a", "bank_b", "bank_c")
    # Noise alone parts the two; five of the stated errors, which hold the rows' part besides.
    assert abs(found.accuracy - exact.accuracy) < 5 * found.accuracy_standard_error
    assert abs(found.auc - exact.auc) < 5 * found.auc_standard_error
    assert found.auc_standard_error < 0.05
    assert abs(found.units - units) < 5 * found.noise_std * np.sqrt(24)
    assert read_summary(run_folder(config, "1").summary) == summary
    assert PHASE in summary.timings
    for site in found.sites:
        assert charges(config, site)[-1] == "evaluation"


def test_a_site_pays_for_labels_and_evaluation_together(config) -> None:
    """As the accountant composes them: less than the sum, more than either."""
    for paid in run(config).privacy.sites.values():
        assert 8.0 < paid.epsilon < 12.0
        assert paid.total_epsilon + paid.remaining_epsilon == pytest.approx(12.0)
    receipts = read_receipts(run_folder(config, "1").receipts)
    assert [receipt.epsilon for receipt in receipts] == pytest.approx([4.0] * 3 + [8.0] * 3)


def test_without_held_out_rows_nobody_is_asked(tmp_path) -> None:
    config = scoring_config(tmp_path, holdout_fraction=0.0)
    grid = Spy(config)
    summary = run(config, grid)
    assert summary.metrics.federated is None
    assert STUDENT not in [action for action, _ in grid.replies]
    assert PHASE not in summary.timings
    assert charges(config, "bank_a") == ["dp-probe"]


def test_only_noised_counts_of_a_public_size_leave_a_site(config) -> None:
    grid = Spy(config)
    run(config, grid)
    replies = [content for action, content in grid.replies if action == STUDENT]
    assert len(replies) == 3
    sums = json.loads(run_folder(config, "1").checkpoint(f"{PHASE}.json").read_text())["sites"]
    for content in replies:
        assert not content.array_records
        assert not content.metric_records
        assert set(content["release"]) == {"site", "status", "release"}
        counts = np.frombuffer(content["release"]["release"], "<i8")
        assert counts.tolist() == sums[content["release"]["site"]]
        assert counts.shape == (24,)
    receipts = {each.site: each for each in read_receipts(run_folder(config, "1").receipts)}
    for content in replies:
        sent = content["release"]["release"]
        receipt = receipts[content["release"]["site"]]
        assert receipt.sha256 == hashlib.sha256(sent).hexdigest()


def test_in_a_sealed_round_the_server_sees_a_sum_alone(sealed) -> None:
    """Promise 5."""
    grid = Spy(sealed)
    run(sealed, grid)
    actions = {action for action, _ in grid.replies}
    assert STUDENT not in actions
    assert messages.LABELS not in actions
    masked = [content for action, content in grid.replies if action == sealed_messages.SEALED]
    opened = json.loads(run_folder(sealed, "1").checkpoint("round-2.json").read_text())
    assert len(opened["total"]) == 24
    total, tables = np.zeros(24, np.int64), 0
    for site in opened["sites"]:
        with (
            open_site(sealed, site, run_folder(sealed, "1"), "1") as agent,
            agent.ledger() as ledger,
        ):
            question = ledger.entries()[-1].question
            counts = np.frombuffer(ledger.cached(question).release, "<i8")
        total += counts
        tables += 1
        assert not any(
            counts.astype("<u4").tobytes()[:32] in content["reply"]["message"] for content in masked
        )
    assert tables == 3
    assert opened["total"] == total.tolist()


@pytest.mark.parametrize("changes", [{}, {"secure_aggregation": True}])
def test_a_site_that_stays_away_is_left_out(tmp_path, changes) -> None:
    config = scoring_config(tmp_path, **changes)
    grid = Spy(config)
    grid.silent_at = {(STUDENT, "bank_b")}
    grid.silent_after = {(sealed_messages.SEALED, "bank_b"): 1}
    summary = run(config, grid)
    assert summary.metrics.federated.sites == ("bank_a", "bank_c")
    assert any(f"bank_b did not answer in phase {PHASE}" in text for text in summary.warnings)


@pytest.mark.parametrize("changes", [{}, {"secure_aggregation": True}])
def test_with_too_few_sites_the_run_goes_on_and_says_what_is_missing(tmp_path, changes) -> None:
    config = scoring_config(tmp_path, **changes)
    grid = Spy(config)
    grid.silent_at = {(STUDENT, "bank_b"), (STUDENT, "bank_c")}
    grid.silent_after = {(sealed_messages.KEYS, site): 1 for site in ("bank_b", "bank_c")}
    summary = run(config, grid)
    assert summary.metrics.federated is None
    assert any("no score on held-out rows" in text for text in summary.warnings)
    assert run_folder(config, "1").report.exists()
    assert "evaluation" not in charges(config, "bank_b")


@pytest.mark.parametrize(
    "tamper",
    [
        lambda record: record | {"release": record["release"][:-1]},
        lambda record: record | {"release": b""},
        lambda record: record | {"release": np.full(24, 2**62).astype("<i8").tobytes()},
        lambda record: record | {"site": "bank_a"},
        lambda record: {"site": "bank_c", "status": "fine"},
    ],
)
def test_a_malformed_answer_is_left_out(config, tamper) -> None:
    grid = Spy(config)

    def change(action, content):
        if action != STUDENT or content["release"]["site"] != "bank_c":
            return content
        return RecordDict({"release": ConfigRecord(tamper(dict(content["release"])))})

    grid.tamper = change
    assert run(config, grid).metrics.federated.sites == ("bank_a", "bank_b")


@pytest.mark.parametrize("changes", [{}, {"secure_aggregation": True}])
def test_a_finished_evaluation_is_not_asked_again(tmp_path, changes) -> None:
    """Promise 6: a run that died after it goes on with the same figures, at no further charge."""
    config = scoring_config(tmp_path, **changes)
    first = run(config)
    folder = run_folder(config, "1")
    folder.summary.unlink()
    again = Spy(config)
    second = run(config, again)
    assert second.metrics.federated == first.metrics.federated
    asked = {action for action, _ in again.replies}
    assert asked <= {messages.HELLO, messages.EVALUATE, sealed_messages.RECEIPTS}
    assert charges(config, "bank_a").count("evaluation") == 1
    assert second.wire == first.wire


def test_a_run_that_died_within_it_gets_the_stored_answers(config) -> None:
    run(config)
    folder = run_folder(config, "1")
    folder.summary.unlink()
    folder.checkpoint(f"{PHASE}.json").unlink()
    run(config)
    assert charges(config, "bank_a").count("evaluation") == 1


def test_patients_are_held_out_whole(tmp_path) -> None:
    config = visits_config(
        tmp_path,
        holdout_fraction=0.4,
        evaluation_epsilon=20.0,
        prune_ratio=0.0,
        quantize="none",
    )
    summary = run(config)
    held = 0
    for site in config.sites:
        with open_site(config, site, run_folder(config, "1"), "1") as agent:
            parts = hold_out(agent.unit_rows, 0.4, agent.identity)
        held += parts.held_out.num_units
    assert abs(summary.metrics.federated.units - held) < 5 * 24**0.5
    assert summary.privacy.sites["bank_a"].unit == "group"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget_epsilon": 9.0}, r"budget-epsilon=9.0 must hold epsilon=4.0 and evaluation-eps"),
        ({"budget_epsilon": 4.0}, r"budget-epsilon=4.0 must hold"),
        ({"mechanism": "clipped-site"}, r"holdout-fraction=0.4 must be 0 with mechanism='clipp"),
        (
            {"evaluation_epsilon": 1e-7, "secure_aggregation": True},
            r"evaluation-epsilon=1e-07: .* raise epsilon",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_up_front_and_leaves_no_trace(
    tmp_path, changes, words
) -> None:
    config = scoring_config(tmp_path, **changes)
    with pytest.raises(ConfigError, match=words):
        prepare(config)
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


def test_a_lasting_budget_must_hold_both(tmp_path) -> None:
    ledgers = tmp_path / "ledgers"
    folders = {name: tmp_path / name for name in ("one", "two")}
    for folder in folders.values():
        folder.mkdir()
    lasting = {"ledger_dir": str(ledgers), "budget_epsilon": 10.0}
    run(scoring_config(folders["one"], **lasting))
    files = [path for path in sorted(ledgers.rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    config = scoring_config(folders["two"], epsilon=3.9, **lasting)
    with pytest.raises(ConfigError, match=r"epsilon=3\.9 and evaluation-epsilon=8\.0 must fit"):
        prepare(config)
    assert [path for path in sorted(ledgers.rglob("*")) if path.is_file()] == files
    assert {path: path.read_bytes() for path in files} == before


def test_a_killed_run_with_a_spent_budget_may_go_on(tmp_path) -> None:
    """Promise 6: what it was charged for is given again, so nothing must fit."""
    lasting = {"ledger_dir": str(tmp_path / "ledgers"), "budget_epsilon": 9.4}
    config = scoring_config(tmp_path, **lasting)
    first = run(config)
    folder = run_folder(config, "1")
    folder.summary.unlink()
    folder.checkpoint(f"{PHASE}.json").unlink()
    assert run(config).metrics.federated == first.metrics.federated


class TestMaliciousServer:
    """A student that is not named, too large or of another hash: nothing is given or charged."""

    def ask(self, config, question, sent: bytes | None, node: int = 1):
        grid = Spy(config, num_nodes=1)
        content = evaluation_messages.student_to_record("bank_a", question, sent or b"")
        if sent is None:
            del content["student"]
        out = Message(content, message_type=STUDENT, dst_node_id=node)
        (reply,) = grid.pull_messages(list(grid.push_messages([out])))
        return dict(reply.content["release"])

    @pytest.fixture
    def good(self, config) -> bytes:
        """A student of this federation's five columns is not needed: it is refused before."""
        return student_to_bytes(softmax_student(), even_edges())

    def question(self, config, **changes):
        asked = evaluation_question(config, prepare_data(config))
        return replace(asked, server_key=server_of(config).key.public, **changes)

    def refused(self, config, question, sent) -> str:
        reply = self.ask(config, question, sent)
        assert set(reply) == {"site", "status"}
        assert charges(config, "bank_a") == []
        return str(reply["status"])

    def test_a_student_that_is_not_named(self, config, good) -> None:
        assert self.refused(config, self.question(config), good) == "policy"

    def test_a_student_of_another_hash(self, config, good) -> None:
        named = self.question(config, broadcast_sha256=student_sha256(good + b"x"))
        assert self.refused(config, named, good) == "policy"

    def test_a_student_that_is_too_large(self, config, good) -> None:
        large = good + bytes(2**24)
        named = self.question(config, broadcast_sha256=student_sha256(large))
        assert self.refused(config, named, large) == "policy:student-bytes-at-most"
        log = run_folder(config, "1").site("bank_a") / "site.log"
        assert "student-bytes-at-most" in log.read_text()

    def test_a_student_of_other_columns(self, config, good) -> None:
        named = self.question(config, broadcast_sha256=student_sha256(good))
        assert self.refused(config, named, good) == "policy"

    def test_no_student_at_all(self, config, good) -> None:
        named = self.question(config, broadcast_sha256=student_sha256(good))
        assert self.refused(config, named, None) == "no-answer"

    def test_a_dearer_question(self, config, good) -> None:
        named = self.question(config, epsilon=9.0, broadcast_sha256=student_sha256(good))
        assert self.refused(config, named, good) == "policy:epsilon-per-release"

    def test_a_site_that_holds_nothing_out(self, tmp_path, good) -> None:
        config = scoring_config(tmp_path, holdout_fraction=0.0)
        named = self.question(config, broadcast_sha256=student_sha256(good))
        assert self.refused(config, named, good) == "policy:evaluation"

    def test_counts_outside_a_sum(self, sealed, good) -> None:
        run(sealed)
        before = charges(sealed, "bank_a")
        named = self.question(sealed, broadcast_sha256=student_sha256(good))
        assert self.ask(sealed, named, good) == {
            "site": "bank_a",
            "status": "policy:secure-aggregation",
        }
        assert charges(sealed, "bank_a") == before

    def test_another_student_than_the_sealed_round_named(self, sealed) -> None:
        """The hash is fixed when the round opens; the file comes two steps later."""

        class Swaps(Spy):
            def push_messages(self, outgoing):
                outgoing = list(outgoing)
                for message in outgoing:
                    record = message.content.config_records.get("step")
                    if message.metadata.message_type != sealed_messages.SEALED or record is None:
                        continue
                    delivery, student = record["parts"]
                    if student:
                        record["parts"] = [delivery, student[:-1] + bytes([student[-1] ^ 1])]
                return super().push_messages(outgoing)

        summary = run(sealed, Swaps(sealed))
        assert summary.metrics.federated is None
        for site in sealed.sites:
            assert "evaluation" not in charges(sealed, site)


def test_nothing_but_noised_counts_has_an_encoding() -> None:
    for other in (
        SoftLabels(log_odds=np.zeros((3, 1))),
        np.zeros(24, np.int64),
        EvaluationRelease(counts=np.zeros(24), event=None),
    ):
        with pytest.raises(TypeError, match="only an EvaluationRelease"):
            evaluation_messages.release_to_record("bank_a", other)


@pytest.mark.parametrize("counts", [b"", bytes(8 * 23), bytes(8 * 25), bytes(8 * 24 - 1)])
def test_tables_of_another_length_are_refused(counts) -> None:
    with pytest.raises(DataError, match="must be 192"):
        evaluation_messages.read_counts(counts, length=24, largest=100)
