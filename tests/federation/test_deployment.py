"""Sites behind sockets, as they are deployed: real agents, real courier, Flower's messages."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from safetensors.numpy import load

from fedistill.errors import BadInput, LedgerError, RunFailed, TooFewSites
from fedistill.federation import courier
from fedistill.federation.local_grid import LocalGrid
from fedistill.federation.progress import Progress
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import questions_of
from fedistill.federation.up_front import prepare_deployment
from fedistill.federation.workflow import run_workflow
from fedistill.privacy.countersign import countersigned_path, read_countersigned
from fedistill.privacy.ledger_key import load_key
from fedistill.privacy.receipts_verify import verify_receipts
from fedistill.site import open_ledger
from fedistill.site.approvals import Approvals, Decision
from fedistill.site.daemon import serving
from fedistill.site.site_config import SiteConfig
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient
from tests.deployed import SITES, write_federation

pytestmark = pytest.mark.usefixtures("quick")


class Nodes(LocalGrid):
    """A node for each site, which knows its socket alone."""

    def __init__(self, config, sites):
        super().__init__(courier.app, config.to_flat(), num_nodes=len(sites))
        for context, site in zip(self._contexts.values(), sites.values(), strict=True):
            context.node_config = {courier.SOCKET: str(site.socket)}


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


def run(config, sites):
    return run_workflow(
        Nodes(config, sites),
        config,
        prepare_deployment(config),
        run_folder(config, "7"),
        run="1",
        progress=Progress(),
    )


@pytest.fixture
def started(folder):
    with ExitStack() as stack:

        def start(**clauses):
            sites, config = write_federation(folder, **clauses)
            for site in sites.values():
                stack.enter_context(serving(SiteConfig.load(site.config)))
            return sites, config

        yield start


def test_deployed_sites_teach_a_student_and_are_charged_once_each(started):
    sites, config = started()
    summary = run(config, sites)
    assert summary.metrics.student.auc > 0.7
    assert tuple(summary.privacy.sites) == SITES
    assert [site.charges() for site in sites.values()] == [1, 1, 1]
    assert summary.metrics.central_reference is None
    assert summary.metrics.teachers is None
    assert summary.privacy.sites["bank_a"].total_epsilon is None
    assert "its own ledger" in summary.guarantee
    assert (run_folder(config, "7").path / "student.onnx").is_file()
    assert not (run_folder(config, "7").path / "receipts.jsonl").exists()
    assert all((site.folder / "receipts.jsonl").is_file() for site in sites.values())


def test_receipts_are_signed_by_both_sides_and_are_of_masked_bytes(started):
    sites, config = started()
    summary = run(config, sites)
    assert not [warning for warning in summary.warnings if "receipt" in warning]
    for name, site in sites.items():
        receipts = site.folder / "receipts.jsonl"
        key = site.policy().server_key
        check = verify_receipts(site.ledger, receipts, server_key=key)
        assert check.valid, check.message
        assert check.countersigned == {1}
        (kept,) = read_countersigned(countersigned_path(receipts))
        server_copy = Path(config.countersign_dir) / "countersigned" / f"{name}.jsonl"
        assert read_countersigned(server_copy) == (kept,)
        with open_ledger(
            site.policy(), site.ledger, create=False, key=site.folder / "identity.key"
        ) as ledger:
            own = ledger.cached(kept.statement.question).release
        assert kept.statement.sha256 != hashlib.sha256(own).hexdigest()  # of the masked bytes
        (receipt,) = check.receipts
        assert receipt.sealed
        assert receipt.total_epsilon > 0
        assert "epsilon" not in kept.to_bytes().decode()


def test_a_ledger_rewound_with_anchor_and_receipts_is_named_at_the_next_hello(folder):
    sites, config = write_federation(folder)
    old = folder / "old"
    shutil.copytree(sites["bank_b"].folder, old)
    with ExitStack() as agents:
        for site in sites.values():
            agents.enter_context(serving(SiteConfig.load(site.config)))
        run(config, sites)
    shutil.rmtree(sites["bank_b"].folder)
    shutil.copytree(old, sites["bank_b"].folder)
    with ExitStack() as agents:
        for site in sites.values():
            agents.enter_context(serving(SiteConfig.load(site.config)))
        again = config.model_copy(update={"output_dir": str(folder / "again")})
        summary = run(again, sites)
    assert tuple(summary.privacy.sites) == ("bank_a", "bank_c")
    (warning,) = [text for text in summary.warnings if "bank_b" in text]
    assert "ends at entry 0 and does not hold entry 1" in warning
    assert sites["bank_b"].charges() == 0


@pytest.mark.parametrize(
    ("clause", "value"),
    [
        ("epsilon-per-release", {"epsilon_per_release": 1.0}),
        ("total-epsilon", {"total_epsilon": 1.0}),
        ("delta", {"delta": 1e-6}),
        ("mechanisms", {"mechanisms": ("votes",)}),
        ("proxy-sha256", {"proxy_sha256": ("ab" * 32,)}),
        ("unit", {"unit": "site"}),
        ("min-sites", {"min_sites": 4}),
        ("min-honest-sites", {"min_honest_sites": 3}),
        ("colluding-sites", {"colluding_sites": 1}),
        ("holdout-fraction", {"holdout_fraction": 0.1}),
        ("server-key", {"server_key": "ab" * 32}),
        ("peers", {"peers": {}}),
    ],
)
def test_a_run_that_asks_for_more_is_told_the_clause_and_charges_nothing(started, clause, value):
    sites, config = started(**value)
    with pytest.raises(TooFewSites, match=rf"\(clause {clause}\)"):
        run(config, sites)
    assert [site.charges() for site in sites.values()] == [0, 0, 0]


def test_noise_in_floating_point_is_refused_unless_the_policy_allows_it(started):
    """PRIVACY rule 14: such a mechanism may be allowed, and its noise still is not."""
    sites, config = started(mechanisms=("dp-sgd",))
    floating = config.model_copy(update={"mechanism": "dp-sgd", "float_noise": "allow"})
    with pytest.raises(TooFewSites, match=r"forbids the question \(clause float-noise\)"):
        run(floating, sites)
    assert [site.charges() for site in sites.values()] == [0, 0, 0]


def test_labels_outside_a_sum_are_refused_where_the_policy_requires_sums(started):
    sites, config = started()
    plain = config.model_copy(update={"secure_aggregation": False})
    with pytest.raises(TooFewSites, match=r"forbids the question \(clause secure-aggregation\)"):
        run(plain, sites)
    assert [site.charges() for site in sites.values()] == [0, 0, 0]


def test_labels_outside_a_sum_come_where_the_policy_allows_them(started):
    sites, config = started(secure_aggregation="optional")
    plain = config.model_copy(update={"secure_aggregation": False})
    assert run(plain, sites).metrics.teachers is None
    assert [site.charges() for site in sites.values()] == [1, 1, 1]


def test_a_site_whose_agent_is_down_is_left_out(started, monkeypatch):
    sites, config = started()
    short = config.model_copy(update={"phase_timeout": 2.0})
    gone = sites | {"bank_c": replace(sites["bank_c"], name="gone")}
    monkeypatch.setattr(courier, "SiteClient", partial(SiteClient, patience=0.5))
    summary = run(short, gone)
    assert any("bank_c" in warning for warning in summary.warnings)
    assert sites["bank_c"].charges() == 0


def test_a_question_waits_for_its_owner_and_is_answered_once_approved(started):
    sites, config = started(approval="by-hand")
    queues = [Approvals(site.folder / "approvals") for site in sites.values()]

    def approve_all():
        for queue in queues:
            while not queue.entries():
                time.sleep(0.05)
            queue.decide("1", Decision.APPROVED)

    owner = threading.Thread(target=approve_all)
    owner.start()
    summary = run(config, sites)
    owner.join()
    assert tuple(summary.privacy.sites) == SITES
    assert [site.charges() for site in sites.values()] == [1, 1, 1]


def test_a_question_that_nobody_approves_costs_nothing_and_says_so(started):
    sites, config = started(approval="by-hand")
    with pytest.raises(TooFewSites):
        run(config.model_copy(update={"phase_timeout": 0.5}), sites)
    (entry,) = Approvals(sites["bank_a"].folder / "approvals").entries()
    assert entry.decision is Decision.WAITING
    assert [site.charges() for site in sites.values()] == [0, 0, 0]


def test_a_denied_question_is_refused_by_policy(started):
    sites, config = started(approval="by-hand", secure_aggregation="optional")
    site = sites["bank_a"]
    with SiteClient(site.socket) as client:
        assert client.ask("Labels", asked(config)) == ("waiting", b"")
        Approvals(site.folder / "approvals").decide("1", Decision.DENIED)
        assert client.ask("Labels", asked(config)) == ("policy:approval", b"")
        Approvals(site.folder / "approvals").decide("1", Decision.APPROVED)
        assert client.ask("Labels", asked(config))[0] == "ok"
        other = asked(config)
        other.run = "2"
        assert client.ask("Labels", other) == ("waiting", b"")
    assert site.charges() == 1


def asked(config) -> agent_pb2.Question:
    question = replace(
        questions_of(config, prepare_deployment(config))["bank_a"],
        server_key=load_key(Path(config.countersign_dir) / "server.key").public,
    )
    return agent_pb2.Question(site="bank_a", run="1", question=json.dumps(asdict(question)))


@pytest.mark.parametrize(
    "change",
    [
        {"site": "bank_b"},
        {"run": "../../etc"},
        {"run": ""},
        {"question": "no JSON"},
        {"question": "[]"},
        {"question": "{}"},
    ],
)
def test_what_is_malformed_gets_a_public_class_and_nothing_else(started, change):
    sites, config = started()
    request = asked(config)
    for name, value in change.items():
        setattr(request, name, value)
    with SiteClient(sites["bank_a"].socket) as client:
        assert client.ask("Labels", request) == ("no-answer", b"")
        step = agent_pb2.Step(site="bank_a", run="9", parts=[b"x"])
        for method in ("Shares", "Sealed", "Agree", "Unmask"):
            assert client.ask(method, step) == ("no-answer", b"")
    assert sites["bank_a"].charges() == 0


def test_what_crosses_the_socket_holds_no_labels_but_masked_ones(started, monkeypatch):
    crossed = []
    ask = SiteClient.ask

    def spy(client, method, request):
        status, message = ask(client, method, request)
        crossed.append((method, status, message))
        return status, message

    monkeypatch.setattr(SiteClient, "ask", spy)
    sites, config = started()
    question = questions_of(config, prepare_deployment(config))["bank_a"]
    run(config, sites)
    assert {status for _, status, _ in crossed} == {"ok"}
    for site in sites.values():
        with open_ledger(
            site.policy(), site.ledger, create=False, key=site.folder / "identity.key"
        ) as ledger:
            codes = load(ledger.cached(question.sha256).release)["codes"]
        for kind in ("<i2", "<i4", "<i8", "<u4"):
            noised = codes.astype(kind).tobytes()[:64]
            assert all(noised not in message for _, _, message in crossed)


def test_a_second_agent_on_the_same_ledger_or_socket_is_refused(started, folder):
    sites, _ = started()
    with (
        pytest.raises(RunFailed, match="in use by another agent"),
        serving(SiteConfig.load(sites["bank_a"].config)),
    ):
        pass


def test_an_agent_without_ledger_does_not_begin_one(folder):
    sites, _ = write_federation(folder)
    for path in sites["bank_a"].folder.glob("ledger.db*"):
        path.unlink()
    with (
        pytest.raises(LedgerError, match="no ledger at"),
        serving(SiteConfig.load(sites["bank_a"].config)),
    ):
        pass


def test_the_sockets_are_closed_to_others(started):
    sites, _ = started()
    site = sites["bank_a"]
    assert site.socket.stat().st_mode & 0o777 == 0o660
    assert site.socket.parent.stat().st_mode & 0o777 == 0o750
    assert (site.folder / "owner.sock").stat().st_mode & 0o777 == 0o600


def test_an_open_folder_for_the_socket_is_refused(folder):
    sites, _ = write_federation(folder)
    sites["bank_a"].socket.parent.mkdir()
    sites["bank_a"].socket.parent.chmod(0o755)
    with (
        pytest.raises(BadInput, match="must have at most 0750"),
        serving(SiteConfig.load(sites["bank_a"].config)),
    ):
        pass


def test_an_agent_that_was_restarted_forgets_its_rounds_and_gives_the_same_answer_again(folder):
    sites, config = write_federation(folder)
    with ExitStack() as agents:
        for site in sites.values():
            agents.enter_context(serving(SiteConfig.load(site.config)))
        run(config, sites)
    with ExitStack() as agents:
        for site in sites.values():
            agents.enter_context(serving(SiteConfig.load(site.config)))
        again = config.model_copy(update={"output_dir": str(folder / "again")})
        run(again, sites)
    assert [site.charges() for site in sites.values()] == [1, 1, 1]


def test_an_agent_restarted_between_rounds_rejoins_and_pays_each_round_once(folder, monkeypatch):
    sites, config = write_federation(folder, mechanisms=("corrections",))
    rounds = config.model_copy(update={"mechanism": "corrections", "rounds": 3})
    ask, unmasked = SiteClient.ask, []
    with ExitStack() as agents:
        for site in (sites["bank_a"], sites["bank_c"]):
            agents.enter_context(serving(SiteConfig.load(site.config)))
        restarted = agents.enter_context(ExitStack())
        restarted.enter_context(serving(SiteConfig.load(sites["bank_b"].config)))

        def ask_and_restart(client, method, request):
            answer = ask(client, method, request)
            if method == "Unmask":
                unmasked.append(request.site)
                if len(unmasked) == len(sites):
                    restarted.close()
                    restarted.enter_context(serving(SiteConfig.load(sites["bank_b"].config)))
            return answer

        monkeypatch.setattr(SiteClient, "ask", ask_and_restart)
        summary = run(rounds, sites)
    assert tuple(summary.privacy.sites) == SITES
    assert len(unmasked) == 3 * len(sites)
    assert [site.charges() for site in sites.values()] == [3, 3, 3]


def test_the_courier_adds_little_to_flower_s_start_and_imports_no_torch():
    code = (
        "import time, sys, flwr.clientapp\n"
        "start = time.perf_counter()\n"
        "import fedistill.federation.courier\n"
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'dp_accounting' in sys.modules)"
    )
    took = []
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds, torch, accounting = out.stdout.split()
        assert (torch, accounting) == ("False", "False"), out.stderr
        took.append(float(seconds))
    assert min(took) < 0.2
