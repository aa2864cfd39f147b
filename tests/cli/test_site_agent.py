"""What a site's owner types, and what a coordinator does before."""

import json
import signal
import subprocess
import tomllib
from datetime import UTC, datetime

import pytest
import tomli_w

from fedistill.data import ProxySet
from fedistill.errors import PolicyRefusal, Waiting
from fedistill.labels import LabelQuestion
from fedistill.provision.coordinator import init, read_request, sign
from fedistill.provision.project import Workshop
from fedistill.provision.site_folder import SiteFolder, init_site, join
from fedistill.site.approvals import MOST_WAITING, Approvals, Decision
from fedistill.site.daemon import serving
from fedistill.site.site_config import SiteConfig
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient
from tests.cli.conftest import COMMAND
from tests.deployed import Site

QUESTION = LabelQuestion(
    mechanism="dp-probe", epsilon=1.0, delta=1e-5, num_classes=2, proxy_sha256="0" * 64
)


def fedistill(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_a_proxy_set_is_made_of_public_rows(site):
    out = site.folder / "proxy.bin"
    done = fedistill(
        "data", "proxy", site.folder.parent / "public.csv", out, "--ignore-columns", "default"
    )
    assert done.returncode == 0, done.stderr
    proxy = ProxySet.load(out)
    assert proxy.sha256 in done.stdout
    assert "default" not in proxy.columns
    assert proxy == ProxySet.load(site.folder.parent / "proxy.bin")
    again = fedistill("data", "proxy", site.folder.parent / "public.csv", out)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_a_ledger_is_begun_once(site):
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    begun = fedistill("site", "new-ledger", "--config", site.config)
    assert begun.returncode == 0, begun.stderr
    assert site.charges() == 0
    again = fedistill("site", "new-ledger", "--config", site.config)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_the_owner_decides(site):
    queue = Approvals(SiteConfig.load(site.config).approvals_path)
    with pytest.raises(Waiting):
        queue.require("1234", QUESTION)
    assert "1234" in fedistill("site", "pending", "--config", site.config).stdout
    approved = fedistill("site", "approve", "1234", "--config", site.config)
    assert approved.returncode == 0, approved.stderr
    queue.require("1234", QUESTION)
    assert "no question waits" in fedistill("site", "pending", "--config", site.config).stdout
    assert fedistill("site", "deny", "1234", "--config", site.config).returncode == 0
    with pytest.raises(PolicyRefusal, match="denied"):
        queue.require("1234", QUESTION)
    unknown = fedistill("site", "approve", "99", "--config", site.config)
    assert unknown.returncode == 2
    assert "has asked nothing" in unknown.stderr


def test_status_says_what_is_left_and_whether_the_agent_runs(site):
    down = fedistill("site", "status", "--config", site.config)
    assert down.returncode == 1
    assert "does not run" in down.stdout
    with serving(SiteConfig.load(site.config)):
        up = fedistill("site", "status", "--config", site.config)
    assert up.returncode == 0, up.stderr
    assert "customers of bank_a" in up.stdout
    assert "idle" in up.stdout


def test_status_in_json_has_what_an_operator_wants(site):
    down = fedistill("site", "status", "--config", site.config, "--format", "json")
    assert down.returncode == 1
    found = json.loads(down.stdout)
    assert found["running"] is False
    assert found["left-epsilon"] == found["budget-epsilon"] == 4.0
    with serving(SiteConfig.load(site.config)):
        up = fedistill("site", "status", "--config", site.config, "--format", "json")
    assert up.returncode == 0, up.stderr
    found = json.loads(up.stdout)
    assert found["running"] is True
    assert found["uptime-seconds"] > 0
    assert found["open-rounds"] == found["waiting"] == []
    assert found["answers"] == found["refusals"] == found["finished-rounds"] == 0
    assert found["certificate-days"] is None
    assert found["last-answer"] == ""


def test_status_of_a_ledger_that_cannot_vouch_is_no_success(site):
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    done = fedistill("site", "status", "--config", site.config)
    assert done.returncode == 1
    assert "no ledger at" in done.stderr


def test_an_approval_holds_for_all_rounds_of_a_run_and_for_no_other_question(tmp_path):
    queue = Approvals(tmp_path / "queue")
    for question in (QUESTION, QUESTION):
        with pytest.raises(Waiting):
            queue.require("1", question)
    queue.decide("1", Decision.APPROVED)
    queue.require("1", LabelQuestion(**{**vars(QUESTION), "round": 3, "cohort_sha256": "x"}))
    with pytest.raises(Waiting):
        queue.require("1", LabelQuestion(**{**vars(QUESTION), "epsilon": 2.0}))


def test_a_full_queue_refuses(tmp_path):
    queue = Approvals(tmp_path)
    for run in range(MOST_WAITING):
        with pytest.raises(Waiting):
            queue.require(str(run), QUESTION)
    with pytest.raises(PolicyRefusal, match="decide first"):
        queue.require("more", QUESTION)
    assert len(queue.entries()) == MOST_WAITING


def test_what_is_no_entry_in_the_queue_allows_nothing(tmp_path):
    queue = Approvals(tmp_path)
    with pytest.raises(Waiting):
        queue.require("1", QUESTION)
    (path,) = tmp_path.glob("*.json")
    path.write_text('{"decision": "approved"}')
    with pytest.raises(PolicyRefusal, match="cannot be read"):
        queue.require("1", QUESTION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proxy-sha256": "0" * 64}, "look at the new set"),
        ({"proxy-sha256": "short"}, "proxy-sha256"),
        ({"classes": ["no"]}, "classes"),
        ({"data-path": "nowhere.csv"}, "cannot be read"),
        ({"socket-path": "agent.sock"}, "a folder of its own"),
        ({"socket-path": "x" * 120 + "/a.sock"}, "at most 100 bytes"),
        ({"policy-path": "none.toml"}, "no release without a policy"),
        ({"sockets": "x"}, "sockets"),
        ({"metrics-address": "9464"}, "an IP address and a port"),
        ({"metrics-address": "127.0.0.1:0"}, "an IP address and a port"),
        ({"metrics-address": "0.0.0.0:9464"}, "metrics-from-elsewhere"),
        ({"private-log-path": "nowhere/private.log"}, "private-log-path"),
    ],
)
def test_an_agent_that_cannot_answer_does_not_start_and_says_why(site, change, message):
    values = {
        "data-path": "rows.csv",
        "label-column": "default",
        "classes": ["no", "yes"],
        "proxy-path": "../proxy.bin",
        "socket-path": "../bank_a.run/agent.sock",
        "proxy-sha256": ProxySet.load(site.folder.parent / "proxy.bin").sha256,
    }
    site.config.write_text(tomli_w.dumps(values | change))
    done = fedistill("site", "start", "--config", site.config)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_with_the_rows_is_said_in_the_private_log_alone(site):
    values = tomllib.loads(site.config.read_text())
    site.config.write_text(tomli_w.dumps(values | {"label-column": "nothing"}))
    done = fedistill("site", "start", "--config", site.config)
    assert done.returncode == 2
    assert "private.log" in done.stderr
    assert "fedistill site preflight" in done.stderr
    assert "nothing" not in done.stderr
    private = site.folder / "private.log"
    assert "label-column='nothing'" in private.read_text()
    assert private.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"total-epsilon": -1.0}, "total-epsilon"),
        ({"delta": 0.5}, "delta"),
        ({"mechanisms": "dp-probe"}, "mechanisms"),
        ({"approval": "sometimes"}, "approval"),
    ],
)
def test_a_policy_that_cannot_be_meant_starts_no_agent(site, clause, message):
    path = site.folder / "policy.toml"
    path.write_text(tomli_w.dumps(tomllib.loads(path.read_text()) | clause))
    done = fedistill("site", "start", "--config", site.config)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_that_others_can_read_starts_no_agent(site):
    (site.folder / "identity.key").chmod(0o644)
    done = fedistill("site", "start", "--config", site.config)
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_rows_that_changed_start_no_agent_before_their_owner_confirms_them(site):
    with serving(SiteConfig.load(site.config)):
        pass
    rows = site.folder / "rows.csv"
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[-1] + "\n")
    refused = fedistill("site", "start", "--config", site.config)
    assert refused.returncode == 2
    assert "fedistill site confirm-data" in refused.stderr
    confirmed = fedistill("site", "confirm-data", "--config", site.config)
    assert confirmed.returncode == 0, confirmed.stderr
    with serving(SiteConfig.load(site.config)):
        pass


def test_an_agent_logs_json_from_its_start_to_its_end(site):
    command = [COMMAND, "site", "start", "--config", site.config]
    with subprocess.Popen(
        [*command, "--log-format", "json", "--log-level", "debug"],
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            with SiteClient(site.socket, patience=60) as client:
                client.hello()
                question = agent_pb2.Question(site="bank_a", run="1", question="{}")
                assert client.ask("Labels", question)[0] == "no-answer"
        finally:
            agent.send_signal(signal.SIGTERM)
            _, logged = agent.communicate(timeout=60)
    assert agent.returncode == 0
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {"ledger", "started", "no-answer"} <= {line["event"] for line in lines}
    assert lines[-1]["message"] == "stopped"


def joined(site: Site, name: str) -> None:
    """The site's folder with a kit for `name` beside its key."""
    project = site.folder.parent / "project.toml"
    project.write_text('name = "banks"\nhosts = ["127.0.0.1"]\nsites = ["bank_a", "bank_b"]\n')
    workshop, folder, now = Workshop(project), SiteFolder(site.folder), datetime.now(UTC)
    made = init(workshop, now=now)
    init_site(folder, name, now=now)
    sign(workshop, read_request(folder.request), now=now)
    join(folder, workshop.kit(name), fingerprint=made.fingerprint, now=now)


def test_the_kit_of_another_site_starts_no_agent(site):
    joined(site, "bank_b")
    for command in ("start", "status"):
        done = fedistill("site", command, "--config", site.config)
        assert done.returncode == 2
        assert "bank_b" in done.stderr
        assert "Traceback" not in done.stderr


def test_status_counts_the_days_of_a_kit(site):
    joined(site, "bank_a")
    done = fedistill("site", "status", "--config", site.config, "--format", "json")
    assert 0 < json.loads(done.stdout)["certificate-days"] < 366
