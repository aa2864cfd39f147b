import json
import os
import socket
import subprocess
import sysconfig
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fedistill.cli.guardian import MARKER, marked

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True)
class Flower:
    """A Flower of one test: own home, ports, Ray folder and FEDISTILL_HOME.

    `environment` holds them; commands run in the repository's root, as in the README.
    """

    environment: dict[str, str]
    home: Path

    def command(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run an installed command, such as `flwr` or `fedistill`, to its end."""
        name, *rest = map(str, arguments)
        return subprocess.run(
            [SCRIPTS / name, *rest],
            env=self.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def runs(self) -> list[dict[str, object]]:
        """What `flwr list` says of every run: `status`, `status-details` and more."""
        return json.loads(self.command("flwr", "list", "--format", "json").stdout)["runs"]

    def run_folders(self) -> list[Path]:
        """The folders of all runs under FEDISTILL_HOME."""
        return sorted((self.home / "runs").glob("*"))

    def processes(self) -> list[psutil.Process]:
        """Living processes that were started in this environment."""
        return [p for p in marked(self.environment[MARKER]) if p.pid != os.getpid()]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture
def flower():
    # Not tmp_path: Ray puts Unix sockets below, and their paths end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "fedistill"
        environment = os.environ | {
            MARKER: uuid.uuid4().hex,
            "FEDISTILL_HOME": str(home),
            "FLWR_HOME": f"{folder}/flwr",
            "FLWR_LOCAL_CONTROL_API_PORT": free_port(),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": free_port(),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", "")]),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "TMPDIR": folder,
        }
        flower = Flower(environment=environment, home=home)
        yield flower
        end(flower.processes())


def end(processes: list[psutil.Process]) -> None:
    """Kill processes and their descendants; Ray's workers hide their environment."""
    family = {child for process in processes for child in process.children(recursive=True)}
    for process in family | set(processes):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family | set(processes), timeout=10)
