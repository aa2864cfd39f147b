import json
import os
import socket
import subprocess
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fedistill.cli.guardian import MARKER, marked
from fedistill.cli.isolation import PROGRESS
from tests.small import write_table

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
APP = "simulations/banks_3"
SITES = ("bank_a", "bank_b", "bank_c")
RESULTS = {
    "summary.json",
    "report.html",
    "student.onnx",
    "student.fp32.onnx",
    "student.safetensors",
    "manifest.json",
    "receipts.jsonl",
    "checkpoints",
}


@dataclass(frozen=True)
class Flower:
    """A Flower of one test: own home, ports, Ray folder and FEDISTILL_HOME.

    `environment` holds them; commands run in the repository's root, as in the README.
    """

    environment: dict[str, str]
    home: Path

    @property
    def folder(self) -> Path:
        """Where Flower, Ray and the test keep their files; its path is short."""
        return self.home.parent

    def command(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run an installed command, such as `flwr` or `fedistill`, to its end."""
        process = self.start(*arguments)
        try:
            out, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, errors = process.communicate(timeout=60)
            pytest.fail(f"{arguments} took more than {timeout} s\n{out}\n{errors}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start an installed command."""
        name, *rest = map(str, arguments)
        return subprocess.Popen(
            [SCRIPTS / name, *rest],
            env=self.environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, config: str) -> subprocess.CompletedProcess[str]:
        """`flwr run` of the three banks; only `runs` knows how it ended."""
        return self.command("flwr", "run", APP, "--stream", "--run-config", config)

    def simulate(self, config: str) -> subprocess.CompletedProcess[str]:
        """`fedistill simulate` of the three banks."""
        return self.command("fedistill", "simulate", APP, "-c", config)

    def runs(self) -> list[dict[str, object]]:
        """What `flwr list` says of every run: `status`, `status-details` and more."""
        runs: list[dict[str, object]] = json.loads(
            self.command("flwr", "list", "--format", "json").stdout
        )["runs"]
        return runs

    def run_folders(self) -> list[Path]:
        """The folders of all runs under FEDISTILL_HOME."""
        return sorted((self.home / "runs").glob("*"))

    def processes(self) -> list[psutil.Process]:
        """Living processes that were started in this environment."""
        return [p for p in marked(self.environment[MARKER]) if p.pid != os.getpid()]

    def family(self) -> set[psutil.Process]:
        """`processes` and their descendants; Ray's workers hide their environment."""
        processes = self.processes()
        family = set(processes)
        for process in processes:
            try:
                family |= set(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        return family

    def progress(self) -> list[dict[str, object]]:
        """What the workflow of a running `fedistill simulate` has told so far."""
        lines = [
            line
            for path in self.folder.glob(f"fedistill-*/{PROGRESS}")
            for line in path.read_text().splitlines(keepends=True)
        ]
        return [json.loads(line) for line in lines if line.endswith("\n")]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@contextmanager
def own_flower() -> Iterator[Flower]:
    """A `Flower` of which no process is left afterwards."""
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
        try:
            yield flower
        finally:
            end(flower.family())


@pytest.fixture
def flower() -> Iterator[Flower]:
    with own_flower() as flower:
        yield flower


@pytest.fixture(scope="session")
def small_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data") / "small.npz")


@pytest.fixture(scope="session")
def quick(small_table: Path) -> str:
    """Config of a run that takes seconds besides Flower's own: small table, plain student."""
    return f'dataset="{small_table}" partition="iid" prune-ratio=0.0 quantize="none"'


def end(processes: set[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)
