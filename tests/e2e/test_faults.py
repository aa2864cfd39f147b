"""Deployed processes killed, cut off or cheated: every run ends, and no site pays twice."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedistill.evaluate.summary import read_summary
from tests.deployed import SITES
from tests.e2e.conftest import Flower
from tests.e2e.faults import Breakable, Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROUND = ("hello", "keys", "shares", "labels", "unmask")
AFTERWARDS = ("target", "student", "compression")
PATIENCE = 900.0


@pytest.fixture
def federation(flower: Flower) -> Iterator[Breakable]:
    federation = Breakable(flower)
    try:
        for site in federation.sites.values():
            federation.until(site.socket.exists, f"the agent of {site.name}")
        yield federation
    finally:
        federation.stop()
        federation.until(lambda: not federation.flower.processes(), "the end of all processes")


@pytest.fixture
def nodes(federation: Breakable) -> Breakable:
    for name in federation.sites:
        federation.start_supernode(name)
    return federation


def ended_well(federation: Breakable, run: subprocess.Popen[str]) -> None:
    code = run.wait(timeout=PATIENCE)
    assert code == 0, f"{federation.output()}\n{federation.logs()}"
    summary = read_summary(federation.folder / "run" / "summary.json")
    assert len(summary.privacy.sites) >= 2
    assert all(count <= 1 for count in federation.charges())


@pytest.mark.parametrize("phase", [*ROUND, *AFTERWARDS])
def test_a_killed_server_app_is_gone_on_with(nodes: Breakable, phase: str) -> None:
    run = nodes.begin()
    nodes.wait_for(phase, run)
    nodes.kill_server_app()
    ended_well(nodes, run)
    assert "submitting it again, try 2" in nodes.output()
    assert nodes.charges() == [1, 1, 1]


@pytest.mark.parametrize("phase", [*ROUND, *AFTERWARDS])
def test_a_killed_superlink_is_waited_for_and_the_run_goes_on(nodes: Breakable, phase: str) -> None:
    run = nodes.begin()
    nodes.wait_for(phase, run)
    nodes.kill_superlink()
    time.sleep(2)
    nodes.start_superlink()
    ended_well(nodes, run)
    assert nodes.charges() == [1, 1, 1]


def test_the_run_is_gone_on_with_by_hand_without_any_site(nodes: Breakable) -> None:
    run = nodes.begin("--tries", "1", **{"output-dir": ""})
    nodes.wait_for("student", run)
    nodes.kill_server_app()
    assert run.wait(timeout=PATIENCE) == 1
    (folder,) = nodes.flower.run_folders()
    assert f"go on with fedistill run --resume {folder.name}" in nodes.output()
    for name in SITES:
        nodes.kill_supernode(name)
    again = nodes.begin("--resume", folder.name, **{"output-dir": ""})
    assert again.wait(timeout=PATIENCE) == 0, nodes.output()
    assert tuple(read_summary(folder / "summary.json").privacy.sites) == SITES
    assert nodes.charges() == [1, 1, 1]


@pytest.mark.parametrize("phase", ROUND)
def test_an_agent_killed_and_restarted_costs_its_site_one_charge_at_most(
    nodes: Breakable, phase: str
) -> None:
    run = nodes.begin()
    nodes.wait_for(phase, run)
    nodes.kill_agent("bank_b")
    nodes.restart_agent("bank_b")
    ended_well(nodes, run)


def test_a_killed_supernode_leaves_its_site_out_and_the_next_run_has_it(nodes: Breakable) -> None:
    run = nodes.begin(**{"phase-timeout": 60.0})
    nodes.wait_for("keys", run)
    nodes.kill_supernode("bank_b")
    nodes.start_supernode("bank_b")
    ended_well(nodes, run)
    again = nodes.begin(**{"output-dir": str(nodes.folder / "again")})
    assert again.wait(timeout=PATIENCE) == 0, nodes.output()
    assert tuple(read_summary(nodes.folder / "again" / "summary.json").privacy.sites) == SITES
    assert nodes.charges() == [1, 1, 1]


def test_a_network_that_is_cut_and_mended_costs_nothing_twice(federation: Breakable) -> None:
    proxy = Proxy(federation.port)
    federation.entrance["bank_b"] = proxy.port
    for name in federation.sites:
        federation.start_supernode(name)
    run = federation.begin()
    federation.wait_for("shares", run)
    proxy.cut()
    time.sleep(5)
    proxy.mend()
    ended_well(federation, run)
    proxy.close()


def test_an_agent_whose_ledger_went_back_or_away_does_not_start(nodes: Breakable) -> None:
    site = nodes.sites["bank_b"]
    before = nodes.folder / "snapshot"
    nodes.kill_agent("bank_b")
    before.mkdir()
    for path in site.folder.glob("ledger.db*"):
        if not path.name.endswith((".lock", ".head", ".anchor")):
            shutil.copy(path, before / path.name)
    nodes.restart_agent("bank_b")
    ended_well(nodes, nodes.begin())
    nodes.kill_agent("bank_b")
    after = nodes.folder / "after"
    after.mkdir()
    for path in before.iterdir():
        shutil.copy(site.folder / path.name, after / path.name)
        shutil.copy(path, site.folder / path.name)
    assert refuses_to_start(nodes, "bank_b", "behind")
    site.ledger.unlink()
    assert refuses_to_start(nodes, "bank_b", "ledger")
    for path in after.iterdir():
        shutil.copy(path, site.folder / path.name)
    nodes.restart_agent("bank_b")
    assert nodes.charges() == [1, 1, 1]


def refuses_to_start(nodes: Breakable, name: str, reason: str) -> bool:
    """Whether the agent ends by itself, with such a sentence."""
    site = nodes.sites[name]
    site.socket.unlink(missing_ok=True)
    agent = nodes.flower.command("fedistill", "site", "start", "--config", site.config)
    assert agent.returncode != 0
    assert reason in agent.stderr, agent.stderr
    return not Path(site.socket).exists()
