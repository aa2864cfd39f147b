"""`fedistill dev` as a person types it: up, run, status, down, and nothing left."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fedistill.cli.dev_folder import SERVICES, DevFolder
from fedistill.evaluate.summary import read_summary
from tests.e2e.conftest import SITES, Flower

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MIB = 2**20
PATIENCE = 900.0
QUICK = 'epsilon=2.0 prune-ratio=0.0 quantize="none"'


@pytest.fixture
def folder(flower: Flower) -> Iterator[DevFolder]:
    folder = DevFolder(flower.home / "dev")
    yield folder
    if folder.mark.exists():
        flower.command("fedistill", "dev", "down")


def of(folder: DevFolder) -> list[psutil.Process]:
    """Living processes that name the folder: by their command or their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join([*process.cmdline(), *process.environ().values()])
            if str(folder.path) in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def well(flower: Flower, *arguments: object) -> str:
    done = flower.command("fedistill", "dev", *arguments, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_from_nothing_to_a_secured_run_and_back_to_nothing(
    flower: Flower, folder: DevFolder
) -> None:
    said = well(flower, "up")
    assert said.index("SuperLink with TLS") < said.index("SuperNodes are connected")
    assert "fedistill dev run\n" in said
    result = well(flower, "run", "--plain", "-c", QUICK)
    assert "Three sites taught one" in result
    (run_folder,) = flower.run_folders()
    summary = read_summary(run_folder / "summary.json")
    assert tuple(summary.privacy.sites) == SITES
    assert [site.epsilon for site in summary.privacy.sites.values()] == [2.0] * 3
    assert summary.metrics.student.auc is not None
    assert summary.metrics.student.auc > 0.72

    services = json.loads(well(flower, "status", "--format", "json"))["services"]
    assert [each["name"] for each in services] == list(SERVICES)
    agents = [each for each in services if each["name"].startswith("agent-")]
    assert all(0 < each["rss"] < 600 * MIB for each in agents)
    assert "superlink" in well(flower, "status")

    over = flower.command("fedistill", "dev", "run", "-c", "epsilon=5.0")
    assert over.returncode == 1, over.stdout  # the policies say 4
    assert "policy" in over.stderr
    unknown = flower.command("fedistill", "dev", "run", "-c", "epsilonn=5.0")
    assert unknown.returncode == 2
    twice = flower.command("fedistill", "dev", "up")
    assert twice.returncode == 2
    assert "fedistill dev down ends and removes it" in twice.stderr

    command = re.search(r"^  (FLWR_HOME=.*)$", said, re.M)
    assert command is not None
    with (folder.path / "by-flower.log").open("wb") as log:
        by_flower = subprocess.Popen(["bash", "-c", command[1]], env=flower.environment, stdout=log)
    until(lambda: len(flower.run_folders()) == 2)
    assert "removed" in well(flower, "down")  # in the middle of a run
    by_flower.wait(timeout=60)
    assert of(folder) == []
    assert not folder.path.exists()
    assert run_folder.exists()


def test_a_dead_agent_is_seen_and_down_ends_the_rest(flower: Flower, folder: DevFolder) -> None:
    well(flower, "up")
    services = json.loads(well(flower, "status", "--format", "json"))["services"]
    pids = {each["name"]: each["pid"] for each in services}
    psutil.Process(pids["agent-bank_b"]).kill()
    psutil.Process(pids["superlink"]).kill()
    status = flower.command("fedistill", "dev", "status")
    assert status.returncode == 1
    assert "superlink, agent-bank_b must run" in status.stderr
    assert Path(folder.mark).exists()
    well(flower, "down")
    assert of(folder) == []
