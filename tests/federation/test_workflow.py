"""The workflow with real messages and real sites in one process."""

import hashlib
import json

import numpy as np
import onnxruntime
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedistill.codec import encode_release
from fedistill.errors import TooFewSites
from fedistill.evaluate.summary import read_summary
from fedistill.federation import messages, sealed_messages
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import prepare_data, question_of
from fedistill.privacy.countersign import Statement
from fedistill.privacy.receipts import read_receipts
from tests.federation.conftest import Spy, run
from tests.small import make_config

pytestmark = pytest.mark.usefixtures("quick")


def test_a_run_leaves_everything_it_promises(config) -> None:
    summary = run(config)
    folder = run_folder(config, "1")
    files = {path.name for path in folder.path.iterdir()}
    assert files >= {
        "summary.json",
        "report.html",
        "student.onnx",
        "student.fp32.onnx",
        "student.safetensors",
        "manifest.json",
        "receipts.jsonl",
        "checkpoints",
    }
    assert read_summary(folder.summary) == summary
    assert set(summary.metrics.teachers) == set(config.sites)
    assert [receipt.site for receipt in read_receipts(folder.receipts)] == list(config.sites)
    assert summary.metrics.ensemble.auc > 0.7


def test_the_scored_student_is_the_shipped_file(config) -> None:
    """Promise 7: figures come from the file, not from a model in memory."""
    summary = run(config)
    test = prepare_data(config).test
    session = onnxruntime.InferenceSession(str(run_folder(config, "1").path / "student.onnx"))
    (name,) = [given.name for given in session.get_inputs()]
    (shares,) = session.run(["probabilities"], {name: test.rows})
    assert summary.metrics.student.accuracy == pytest.approx(
        (shares.argmax(axis=1) == test.labels).mean()
    )


def test_only_noised_integers_and_public_names_cross_the_wire(config) -> None:
    """Spy on the wire: every byte of every reply is accounted for."""
    grid = Spy(config)
    run(config, grid)
    actions = [action for action, _ in grid.replies]
    assert sorted(actions) == sorted(
        [messages.HELLO] * 2
        + [messages.LABELS] * 3
        + [messages.EVALUATE] * 3
        + [sealed_messages.RECEIPTS] * 3
    )
    for action, content in grid.replies:
        assert not content.array_records
        assert not content.metric_records
        if action == messages.HELLO:
            assert set(content["hello"]) == {"sites", "identities", "anchors"}
            assert set(content["hello"]["identities"]) == {b""}
            continue
        if action == sealed_messages.RECEIPTS:
            assert sealed_messages.read_reply(content) == (messages.OK, b"")
            continue
        record = content["release"]
        assert set(record) == {"site", "status", "release"}
        answer = messages.read_answer(content)
        stored = [run_folder(config, "1").checkpoint(f"{answer.site}.labels").read_bytes()]
        if action == messages.LABELS:
            assert record["release"] in stored
            assert set(content["receipt"]) == {"statement"}
            said = Statement.from_bytes(answer.statement)
            assert said.sha256 == hashlib.sha256(answer.release).hexdigest()


def test_replies_have_one_length_whatever_the_rows(config, tmp_path) -> None:
    """PRIVACY rules 2 and 4: sizes on the wire do not tell the number of rows."""
    sizes = []
    for name, changes in {
        "few": {"num_sites": 3},
        "many": {"num_sites": 1, "min_sites": 1},
    }.items():
        (tmp_path / name).mkdir()
        other = make_config(
            tmp_path / name, prune_ratio=0.0, quantize="none", site_names="bank_a", **changes
        )
        grid = Spy(other)
        run(other, grid)
        sizes.append(
            next(
                messages.wire_bytes(content)
                for action, content in grid.replies
                if action == messages.LABELS and messages.read_answer(content).site == "bank_a"
            )
        )
    assert sizes[0] == sizes[1]


def test_bytes_are_counted_by_site(config) -> None:
    summary = run(config)
    for wire in summary.wire.sites.values():
        assert wire.bytes_up > 600
        assert 0 < wire.bytes_down < 2_000
        assert wire.bytes_evaluation > 450


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 5])
def test_any_number_of_nodes_hosts_all_sites(config, num_nodes: int) -> None:
    summary = run(config, Spy(config, num_nodes=num_nodes))
    assert list(summary.privacy.sites) == list(config.sites)


def test_a_silent_site_is_left_out_with_a_warning(config) -> None:
    grid = Spy(config)
    grid.silent = {"bank_b"}
    summary = run(config, grid)
    assert list(summary.privacy.sites) == ["bank_a", "bank_c"]
    assert any("bank_b did not answer in phase labels" in text for text in summary.warnings)


def test_too_few_sites_end_the_run_with_the_reason(config) -> None:
    grid = Spy(config)
    grid.silent = {"bank_b", "bank_c"}
    with pytest.raises(TooFewSites, match="1 of 3 sites answered, min-sites=2: bank_b did not"):
        run(config, grid)


def test_a_site_that_raises_tells_the_server_nothing(config, monkeypatch) -> None:
    """PRIVACY rule 3: the text stays in the site's own log, the wire sees a public class."""
    from fedistill.mechanisms.dp_probe import DPProbe

    def explode(self, rows, proxy, plan):
        raise ValueError(f"row 17 of {len(rows.rows)} is odd: {rows.rows[17]}")

    monkeypatch.setattr(DPProbe, "release", explode)
    grid = Spy(config)
    with pytest.raises(TooFewSites, match="bank_a did not answer"):
        run(config, grid)
    for action, content in grid.replies:
        if action == messages.LABELS:
            assert set(content["release"]) == {"site", "status"}
            assert content["release"]["status"] == "no-answer"
    log = run_folder(config, "1").site("bank_a") / "site.log"
    assert "row 17" in log.read_text()


def replaced(**fields):
    def tamper(action, content):
        if action != messages.LABELS or content["release"]["site"] != "bank_c":
            return content
        record = dict(content["release"]) | fields
        return RecordDict({"release": ConfigRecord({k: v for k, v in record.items() if v != ""})})

    return tamper


@pytest.mark.parametrize(
    "tamper",
    [
        replaced(release=b"not a release"),
        replaced(release=""),
        replaced(release=[1, 2, 3]),
        replaced(status="<script>"),
        replaced(site="bank_a"),
        lambda action, content: RecordDict() if action == messages.LABELS else content,
        lambda action, content: (
            RecordDict({"release": ArrayRecord({"w": Array(np.ones(3))})})
            if action == messages.LABELS
            else content
        ),
    ],
)
def test_a_malformed_site_is_left_out(config, tamper) -> None:
    grid = Spy(config)
    tampered = []

    def once_a_run(action, content):
        if action == messages.LABELS and messages.read_answer(content).site != "bank_c":
            return content
        tampered.append(action)
        return tamper(action, content)

    grid.tamper = once_a_run
    summary = run(config, grid)
    assert tampered
    assert list(summary.privacy.sites) != []
    assert any("bank_c" in text for text in summary.warnings)
    assert "bank_c" not in summary.metrics.teachers


@pytest.mark.parametrize(
    "field",
    [
        {"site": "../../etc"},
        {"site": "bank_z"},
        {"proxy_sha256": "ab" * 32},
        {"epsilon": 99.0},
        {"epsilon": "1"},
        {"probe_steps": True},
        {"mechanism": "no-noise"},
        {"surprise": 1},
    ],
)
def test_a_malicious_server_gets_no_answer_and_costs_nothing(config, field) -> None:
    grid = Spy(config)
    question = question_of(config, prepare_data(config))
    run_folder(config, "1").claim(config)
    record = dict(messages.question_to_record("bank_a", question)["question"]) | field
    content = RecordDict({"question": ConfigRecord(record)})
    from flwr.app import Message

    ids = grid.push_messages([Message(content, message_type=messages.LABELS, dst_node_id=1)])
    (reply,) = grid.pull_messages(list(ids))
    assert set(reply.content["release"]) == {"site", "status"}
    assert not list(run_folder(config, "1").path.rglob("*.ledger.db"))
    assert not (run_folder(config, "1").path / ".." / ".." / "etc").exists()


def test_two_runs_differ_because_noise_is_fresh(config, tmp_path) -> None:
    run(config)
    (tmp_path / "again").mkdir()
    again = make_config(tmp_path / "again", prune_ratio=0.0, quantize="none")
    run(again)
    first, second = (
        run_folder(each, "1").checkpoint("bank_a.labels").read_bytes() for each in (config, again)
    )
    assert first != second


def test_summary_json_keeps_its_keys(config) -> None:
    run(config)
    summary = json.loads(run_folder(config, "1").summary.read_text())
    assert set(summary) >= {
        "task",
        "dataset",
        "mechanism",
        "seed",
        "metrics",
        "privacy",
        "wire",
        "compression",
        "timings",
    }
    for scores in (
        summary["metrics"]["student"],
        summary["metrics"]["student_fp32"],
        summary["metrics"]["ensemble"],
        summary["metrics"]["central_reference"],
        *summary["metrics"]["teachers"].values(),
    ):
        assert set(scores) >= {"auc", "accuracy", "log_loss", "ece"}
    site = summary["privacy"]["sites"]["bank_a"]
    assert set(site) == {
        "epsilon",
        "total_epsilon",
        "remaining_epsilon",
        "delta",
        "unit",
        "adjacency",
        "views",
        "mechanism",
        "float_noise",
    }
    assert set(site["views"]) == {"everyone", "server"}
    assert set(summary["wire"]["sites"]["bank_a"]) == {
        "bytes_up",
        "bytes_down",
        "bytes_evaluation",
    }
    for stage in summary["compression"]:
        assert set(stage) == {
            "stage",
            "precision",
            "shipped",
            "parameters",
            "bytes",
            "bytes_deflated",
            "metric",
            "agreement",
            "latency_ms_batch_1",
            "latency_ms_batch_256",
        }


def test_three_classes_work_from_end_to_end(tmp_path) -> None:
    from tests.small import write_table

    write_table(tmp_path / "table.npz", num_rows=3_000, num_classes=3)
    config = make_config(tmp_path, quantize="int8", prune_ratio=0.2)
    summary = run(config)
    assert summary.task == "3-class classification"
    assert summary.metrics.ensemble.auc > 0.6


def test_the_wire_takes_the_release_type_alone() -> None:
    with pytest.raises(TypeError):
        messages.release_to_record("bank_a", np.zeros((3, 1)))
    assert encode_release.__annotations__["release"].__name__ == "LabelRelease"
