"""Dashboards and scrape configs: whole, and about metrics that exist."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fedistill.evaluate.summary import Summary
from fedistill.federation import server_metrics
from fedistill.site.policy import Policy
from fedistill.site.watching import Watch

ROOT = Path(__file__).parents[2]
FUNCTIONS = {"sum", "by", "increase", "rate", "count", "histogram_quantile"}
LABELS = {"method", "public_class", "outcome", "le", "site", "phase"}
OF_PROMETHEUS = {"up"}


def agent_text() -> str:
    """What an agent shows that answered and refused once."""
    watch = Watch(Policy.load(ROOT / "clients" / "policy.toml"))
    watch.answered("labels", "1", seconds=0.1, num_bytes=7)
    watch.refused("labels", "1", ValueError(), seconds=0.1)
    watch.follow(lambda: 0, datetime.now(UTC) + timedelta(days=9))
    return generate_latest(watch.registry).decode()


def server_text(folder: Path, summary: Summary) -> str:
    server_metrics.leave_metrics({"labels": 1.0}, summary)
    return (folder / server_metrics.FILE).read_text()


def names(text: str) -> set[str]:
    return {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }


def asked(expression: str) -> set[str]:
    """Names of metrics in a query."""
    return {
        word
        for word in re.findall(r"[a-zA-Z_]\w*", re.sub(r"\[\w+\]|{[^}]*}", "", expression))
        if word not in FUNCTIONS | LABELS
    }


@pytest.fixture
def exported(tmp_path, monkeypatch, summary) -> dict[str, set[str]]:
    monkeypatch.setenv(server_metrics.VARIABLE, str(tmp_path))
    return {"clients": names(agent_text()), "server": names(server_text(tmp_path, summary))}


@pytest.mark.parametrize("part", ["clients", "server"])
def test_each_query_of_a_dashboard_names_metrics_that_exist(part, exported) -> None:
    dashboard = json.loads((ROOT / part / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert all(asked(query) for query in queries)
    assert set().union(*map(asked, queries)) <= exported[part]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("part", ["clients", "server"])
def test_each_alert_is_about_metrics_that_exist_and_says_what_to_do(part, exported) -> None:
    assert yaml.safe_load((ROOT / part / "prometheus.yml").read_text())["rule_files"] == [
        "alerts.yml"
    ]
    (group,) = yaml.safe_load((ROOT / part / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert asked(rule["expr"])
        assert asked(rule["expr"]) <= exported[part] | OF_PROMETHEUS
        assert ": " in rule["annotations"]["summary"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])


@pytest.mark.parametrize("part", ["clients", "server"])
def test_panels_do_not_overlap(part) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((ROOT / part / "grafana.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("part", ["clients", "server"])
def test_the_page_lists_each_metric_and_no_other(part, exported) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    prefix = {"clients": "fedistill_agent_", "server": "fedistill_server_"}[part]
    derived = re.compile("_(bucket|count|sum)$")
    # When a series began is beside each counter and histogram, and none of ours.
    listed = set(re.findall(rf"^\| `({prefix}\w+)` \|", page, re.M))
    shown = {derived.sub("", name) for name in exported[part] if not name.endswith("_created")}
    assert listed == shown


@pytest.mark.parametrize("part", ["clients", "server"])
def test_scrape_configs_ask_this_machine_only(part) -> None:
    config = yaml.safe_load((ROOT / part / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert config.keys() == {"rule_files", "scrape_configs"}
    assert job.keys() <= {"job_name", "scrape_interval", "static_configs"}
    (targets,) = job["static_configs"]
    assert all(target.startswith("127.0.0.1:") for target in targets["targets"])
