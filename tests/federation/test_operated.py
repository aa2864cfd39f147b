"""Deployed sites as their operators see them: logs without rows, metrics, and what is spent."""

import json
import logging
import socket
import tempfile
import tomllib
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import tomli_w
from flwr.app import Context, RecordDict
from flwr.common.logger import FLOWER_LOGGER
from prometheus_client.parser import text_string_to_metric_families

from fedistill.errors import TooFewSites
from fedistill.federation import progress, server_app, server_metrics
from fedistill.log_lines import FIELDS, VARIABLE, LogFormat
from fedistill.site import open_ledger, sealing
from fedistill.site.daemon import serving
from fedistill.site.daemon_log import log_to_stderr
from fedistill.site.site_config import SiteConfig
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient
from tests.deployed import SITES, Site, write_federation
from tests.federation.test_deployment import Nodes

pytestmark = pytest.mark.usefixtures("quick", "loggers")

VALUE, LABEL, UNIT, MISFIT = "31337.4242", "labelsecret", "unitsecret", "misfitsecret"
RUNS = ("run", "plain", "more", "broken")

ROUND = ("keys", "shares", "sealed", "agree", "unmask")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def loggers(monkeypatch) -> Iterator[None]:
    """Handlers and levels that a test sets go with it."""
    levels = {name: logging.getLogger(name).level for name in ("fedistill", "flwr")}
    for name in ("fedistill", "flwr"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))
        monkeypatch.setattr(logger, "propagate", logger.propagate)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)  # which forgets what loggers remember of levels


def mark_rows(site: Site) -> None:
    """Some rows of the site get values, labels and units that nothing else would print."""
    path = site.folder / "rows.csv"
    head, *lines = path.read_text().splitlines()
    marked = [f"{line},{UNIT}{i // 2}" for i, line in enumerate(lines)]
    cells = lines[0].split(",")
    marked += [
        ",".join([VALUE, *cells[1:], f"{UNIT}a"]),
        ",".join([MISFIT, *cells[1:], f"{UNIT}b"]),
        ",".join([*cells[:-1], LABEL, f"{UNIT}c"]),
    ]
    path.write_text("\n".join([f"{head},person", *marked]) + "\n")
    change(site, **{"unit-column": "person"})


def change(site: Site, **keys: object) -> None:
    values = tomllib.loads(site.config.read_text())
    site.config.write_text(tomli_w.dumps(values | keys))


def serve(stack: ExitStack, sites: dict[str, Site]) -> None:
    for site in sites.values():
        stack.enter_context(serving(SiteConfig.load(site.config)))


def run(config, sites, run_id: int = 1) -> None:
    """A run as Flower starts it; run ids differ, or a site would take it for one run."""
    context = Context(run_id, 0, {}, RecordDict(), config.to_flat())
    server_app.app(Nodes(config, sites), context)


def one_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def samples(text: str) -> dict[str, float]:
    """Values by `name{label="value",...}`."""
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        return str(reply.read().decode())


@pytest.mark.parametrize("form", LogFormat)
def test_no_line_of_site_or_server_quotes_a_row_whatever_fails(folder, capfd, monkeypatch, form):
    monkeypatch.setenv(VARIABLE, form)
    # As the agent's command does; pytest has a hook of its own, which it would replace.
    monkeypatch.setattr(warnings, "showwarning", to_the_log)
    log_to_stderr(form, logging.DEBUG)
    FLOWER_LOGGER.addHandler(logging.StreamHandler())  # pytest's capture has Flower's own stream
    sites, config = write_federation(folder, unit="group", total_epsilon=4.5)
    for site in sites.values():
        mark_rows(site)
    config = config.model_copy(update={"unit_column": "person"})
    plain = {"secure_aggregation": False, "output_dir": str(folder / "plain")}
    more = {"epsilon": 3.9, "output_dir": str(folder / "more")}
    broken = {"epsilon": 0.5, "output_dir": str(folder / "broken")}
    with ExitStack() as stack:
        serve(stack, sites)
        run(config, sites)
        for run_id, changes in ((2, plain), (3, more)):
            with pytest.raises(TooFewSites):
                run(config.model_copy(update=changes), sites, run_id)
        with SiteClient(sites["bank_a"].socket) as client:
            client.ask("Labels", agent_pb2.Question(site="bank_a", run="9", question="{"))
            client.ask("Keys", agent_pb2.Invitation(terms="x"))
            client.ask("Sealed", agent_pb2.Step(site="bank_a", run="no such run"))
        monkeypatch.setattr(sealing, "keys", raises_a_row)
        with pytest.raises(TooFewSites):
            run(config.model_copy(update=broken), sites, 4)
    seen = "".join(capfd.readouterr())
    assert "answered" in seen
    assert "BudgetExceeded" in seen
    assert "PolicyRefusal" in seen
    assert "an error of private code" in seen
    kept = (sites["bank_a"].folder / "private.log").read_text()
    left = [path for name in RUNS for path in (folder / name).rglob("*") if path.is_file()]
    for mark in (VALUE, LABEL, UNIT, MISFIT):
        assert mark in kept, "the test proves nothing where the mark reaches no log"
        assert mark not in seen
        assert not any(mark.encode() in path.read_bytes() for path in left)


def to_the_log(message, category, filename, lineno, file=None, line=None) -> None:
    logging.getLogger("py.warnings").warning("%s", message)


def raises_a_row(agent, *_arguments):
    quoted = f"row {VALUE} {LABEL} {MISFIT} of {UNIT}7"
    warnings.warn(quoted, stacklevel=1)
    logging.getLogger("some.library").error(quoted)
    raise ValueError(quoted) from KeyError(f"{UNIT} and {agent.rows.rows[0]}")


def test_lines_in_json_are_objects_with_the_fields_that_apply(folder, capfd, monkeypatch):
    monkeypatch.setenv(VARIABLE, "json")
    log_to_stderr(LogFormat.JSON)
    sites, config = write_federation(folder)
    with ExitStack() as stack:
        serve(stack, sites)
        run(config, sites)
    out, err = capfd.readouterr()
    agents = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    answered = [line for line in agents if line["event"] == "answered"]
    assert {line["phase"] for line in answered} == {*ROUND, "receipts"}
    for line in answered:
        assert line.keys() == {"time", "level", "event", "message", *FIELDS}
        assert line["run"] == "1"
    sealed = [line for line in answered if line["phase"] == "sealed"]
    assert {line["site"] for line in sealed} == set(SITES)
    assert all(0 < line["epsilon"] <= 4.0 for line in sealed)
    assert all(line["bytes"] > 0 for line in sealed)
    server = [json.loads(line) for line in out.splitlines() if line]
    assert {line["run"] for line in server} == {"1"}
    assert "debug" not in {line["level"] for line in server}
    took = {line["phase"] for line in server if line["event"] == "phase"}
    assert {"hello", "target", "student", "compression", "report"} <= took
    (end,) = [line for line in server if line["event"] == "finished"]
    assert end["epsilon"] == 4.0
    assert end["bytes"] > 0


def test_the_agent_s_metrics_are_what_happened(folder):
    sites, config = write_federation(folder)
    port = one_free_port()
    change(sites["bank_a"], **{"metrics-address": f"127.0.0.1:{port}"})
    again = config.model_copy(update={"output_dir": str(folder / "again")})
    plain = {"secure_aggregation": False, "output_dir": str(folder / "plain")}
    with ExitStack() as stack:
        serve(stack, sites)
        before = samples(scrape(port))
        run(config, sites)
        run(again, sites, 2)
        with pytest.raises(TooFewSites):
            run(config.model_copy(update=plain), sites, 3)
        text = scrape(port)
    after = samples(text)
    agent = "fedistill_agent_"
    assert before[f"{agent}epsilon_spent{{}}"] == 0.0
    assert before[f"{agent}last_answer_timestamp_seconds{{}}"] == 0.0
    policy = sites["bank_a"].policy()
    with open_ledger(
        policy, sites["bank_a"].ledger, create=False, key=sites["bank_a"].folder / "identity.key"
    ) as ledger:
        spent = ledger.spent(policy.delta)
    assert spent > 0
    assert after[f"{agent}epsilon_spent{{}}"] == spent
    assert after[f"{agent}epsilon_left{{}}"] == pytest.approx(policy.total_epsilon - spent)
    assert after[f"{agent}epsilon_budget{{}}"] == policy.total_epsilon
    assert after[f"{agent}delta{{}}"] == policy.delta
    assert after[f"{agent}rounds_total{{}}"] == 2
    assert after[f"{agent}open_rounds{{}}"] == 0
    for method in ROUND:
        label = json.dumps({"method": method})
        assert after[f"{agent}answers_total{label}"] == 2
        assert after[f"{agent}sent_bytes_total{label}"] > 0
        assert after[f"{agent}phase_seconds_count{label}"] == 2
    refused = json.dumps({"method": "labels", "public_class": "policy:secure-aggregation"})
    assert after[f"{agent}refusals_total{refused}"] == 1
    assert after[f"{agent}last_answer_timestamp_seconds{{}}"] > 1e9
    labels = {
        name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for name in sample.labels
    }
    assert labels <= {"method", "public_class", "le", "site"}, "no run, no question"


def test_nobody_listens_for_metrics_unless_the_owner_says_where(folder, monkeypatch):
    sites, _ = write_federation(folder)
    monkeypatch.setattr("fedistill.site.daemon.scraped", lambda *_: pytest.fail("it listens"))
    with serving(SiteConfig.load(sites["bank_a"].config)):
        pass


def test_the_server_leaves_metrics_of_its_last_run_and_counts_all(folder, monkeypatch):
    metrics = folder / "metrics"
    metrics.mkdir()
    monkeypatch.setenv(server_metrics.VARIABLE, str(metrics))
    sites, config = write_federation(folder)
    path = metrics / server_metrics.FILE
    with ExitStack() as stack:
        serve(stack, {"bank_a": sites["bank_a"], "bank_b": sites["bank_b"]})
        short = config.model_copy(update={"phase_timeout": 1.0, "secure_aggregation": False})
        with pytest.raises(TooFewSites):
            run(short.model_copy(update={"output_dir": str(folder / "plain")}), sites)
        failed = samples(path.read_text())
        stack.enter_context(serving(SiteConfig.load(sites["bank_c"].config)))
        run(config, sites, 2)
    server = "fedistill_server_"
    assert failed[f'{server}runs_total{{"outcome": "failed"}}'] == 1
    assert failed[f"{server}last_run_succeeded{{}}"] == 0
    assert failed[f'{server}last_run_phase_seconds{{"phase": "hello"}}'] > 0
    found = samples(path.read_text())
    assert found[f'{server}runs_total{{"outcome": "failed"}}'] == 1
    assert found[f'{server}runs_total{{"outcome": "finished"}}'] == 1
    assert found[f"{server}last_run_succeeded{{}}"] == 1
    for site in SITES:
        label = json.dumps({"site": site})
        assert found[f"{server}last_run_site_answered{label}"] == 1
        assert found[f"{server}last_run_epsilon_asked{label}"] == 4.0
        assert found[f"{server}last_run_received_bytes{label}"] > 0
        assert found[f"{server}last_run_sent_bytes{label}"] > 0
    assert not any("_created" in name for name in found), "counts go on from earlier processes"
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("not metrics {")
    server_metrics.leave_metrics({})
    assert samples(path.read_text())[f'{server}runs_total{{"outcome": "failed"}}'] == 1


def test_metrics_that_cannot_be_written_cost_no_run_its_result(folder, monkeypatch):
    monkeypatch.setenv(server_metrics.VARIABLE, str(folder / "missing"))
    warned = []
    monkeypatch.setattr(progress.Progress, "warn", lambda _self, text: warned.append(text))
    sites, config = write_federation(folder)
    with ExitStack() as stack:
        serve(stack, sites)
        run(config, sites)
    assert any(server_metrics.VARIABLE in text for text in warned)
    assert (folder / "run" / "summary.json").is_file()
