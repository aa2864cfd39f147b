"""Three sites as deployed: agents, SuperNodes, a SuperLink and `flwr run`, each its own process."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedistill.evaluate.summary import read_summary
from tests.deployed import SITES, Site, run_config, write_federation
from tests.e2e.conftest import Flower, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PATIENCE = 240.0
NOBODY = 65534


class Federation:
    """Files of three sites and a coordinator, and their processes."""

    def __init__(self, flower: Flower, **clauses: object) -> None:
        self.flower = flower
        self.folder = flower.folder / "f"
        self.folder.mkdir()
        self.sites, self.config = write_federation(self.folder, **clauses)
        self.port = free_port()
        self.others: list[subprocess.Popen[str]] = []
        self.agents = {name: self.start_agent(site) for name, site in self.sites.items()}

    def start_agent(self, site: Site) -> subprocess.Popen[str]:
        return self.log(f"agent-{site.name}", "fedistill", "site", "start", "--config", site.config)

    def log(self, name: str, *command: object) -> subprocess.Popen[str]:
        """Start a command whose output goes to a file: nobody reads a pipe."""
        with (self.folder / f"{name}.log").open("a") as file:
            return subprocess.Popen(
                [str(part) for part in command],
                env=self.flower.environment,
                cwd=self.folder,
                stdout=file,
                stderr=file,
                text=True,
            )

    def start_flower(self, sockets: dict[str, Path]) -> None:
        superlink = self.log(
            "superlink",
            "flower-superlink",
            *("--insecure", "--host", "127.0.0.1", "--port", self.port),
            "--disable-runtime-dependency-installation",
        )
        self.others.append(superlink)
        self.until(lambda: answers(self.port), "the SuperLink")
        for name, path in sockets.items():
            supernode = self.log(
                f"supernode-{name}",
                "flower-supernode",
                *("--insecure", "--superlink", f"127.0.0.1:{self.port}", "--port", free_port()),
                *("--node-config", f'site-socket="{path}"'),
            )
            self.others.append(supernode)
        home = Path(self.flower.environment["FLWR_HOME"])
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "own"\n\n[superlink.own]\naddress = "127.0.0.1:{self.port}"\n'
            "insecure = true\n"
        )

    def run(self, **changes: object) -> subprocess.CompletedProcess[str]:
        flat = run_config(self.folder) | {"phase-timeout": 120.0} | changes
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in flat.items())
        return self.flower.command(
            "flwr", "run", "server", "own", "--stream", "--run-config", config
        )

    def until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline, f"{what} is not ready\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log")
        )


def answers(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


@pytest.fixture
def federation(flower: Flower) -> Iterator[Federation]:
    yield from serve(Federation(flower))


def serve(federation: Federation) -> Iterator[Federation]:
    """A federation whose agents answer, and whose processes are ended afterwards."""
    for site in federation.sites.values():
        federation.until(site.socket.exists, f"the agent of {site.name}")
    yield federation
    for agent in federation.agents.values():
        agent.terminate()
    for agent in federation.agents.values():
        assert agent.wait(timeout=60) == 0
    for process in federation.others:
        process.terminate()
    for process in federation.others:
        process.wait(timeout=60)


def test_flwr_run_over_real_processes_gives_a_student_and_charges_each_site_once(
    federation: Federation,
) -> None:
    federation.start_flower({name: site.socket for name, site in federation.sites.items()})
    result = federation.run()
    folder = federation.folder / "run"
    assert (folder / "summary.json").is_file(), f"{result.stdout}\n{federation.logs()}"
    summary = read_summary(folder / "summary.json")
    assert tuple(summary.privacy.sites) == SITES
    assert summary.metrics.student.auc is not None
    assert summary.metrics.student.auc > 0.7
    assert (folder / "student.onnx").is_file()
    status = federation.flower.command(
        "fedistill", "site", "status", "--config", federation.sites["bank_a"].config
    )
    assert status.returncode == 0, status.stderr
    assert "in 1 charges" in status.stdout
    assert "idle" in status.stdout
    assert [site.charges() for site in federation.sites.values()] == [1, 1, 1]

    killed = federation.agents["bank_b"]
    killed.kill()
    killed.wait(timeout=60)
    federation.agents["bank_b"] = federation.start_agent(federation.sites["bank_b"])
    again = federation.folder / "again"
    federation.run(**{"output-dir": str(again)})
    assert tuple(read_summary(again / "summary.json").privacy.sites) == SITES, federation.logs()
    assert [site.charges() for site in federation.sites.values()] == [1, 1, 1]


def test_what_runs_as_another_user_opens_neither_rows_nor_ledger_nor_key(
    federation: Federation,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    site = federation.sites["bank_a"]
    for folder in (federation.flower.folder, federation.folder):
        folder.chmod(0o711)
    assert as_nobody("head", "-c", 10, federation.folder / "proxy.bin").returncode == 0
    secret = ("rows.csv", "ledger.db", "identity.key", "policy.toml", "owner.sock")
    for path in [*(site.folder / name for name in secret), site.socket]:
        read = as_nobody("head", "-c", 10, path)
        assert "Permission denied" in read.stderr, path


def test_the_courier_s_group_reaches_the_socket_and_no_file(federation: Federation) -> None:
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists():
        pytest.skip("only root can start a process of another user, with a Python that may be read")
    site = federation.sites["bank_a"]
    for folder in (federation.flower.folder, federation.folder):
        folder.chmod(0o711)
    connect = "import sys, socket; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    assert "Permission" in as_nobody(python, "-c", connect, site.socket).stderr
    for path in (site.socket.parent, site.socket):
        os.chown(path, -1, NOBODY)
    assert as_nobody(python, "-c", connect, site.socket).returncode == 0
    assert "Permission denied" in as_nobody("cat", site.folder / "rows.csv").stderr


def as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return subprocess.run([*user, *map(str, command)], capture_output=True, text=True)


@pytest.fixture
def holding_out(flower: Flower) -> Iterator[Federation]:
    clauses = {"evaluation": "allow", "holdout_fraction": 0.3, "total_epsilon": 12.0}
    yield from serve(Federation(flower, **clauses))


def test_flwr_run_scores_the_student_on_rows_that_the_sites_held_out(
    holding_out: Federation,
) -> None:
    holding_out.start_flower({name: site.socket for name, site in holding_out.sites.items()})
    result = holding_out.run(**{"holdout-fraction": 0.3, "evaluation-epsilon": 4.0})
    folder = holding_out.folder / "run"
    assert (folder / "summary.json").is_file(), f"{result.stdout}\n{holding_out.logs()}"
    found = read_summary(folder / "summary.json").metrics.federated
    assert found is not None, holding_out.logs()
    assert found.sites == SITES
    assert found.accuracy is not None
    assert found.accuracy > 0.6
    assert "held out, by noised counts" in result.stdout
    assert [site.charges() for site in holding_out.sites.values()] == [2, 2, 2]
