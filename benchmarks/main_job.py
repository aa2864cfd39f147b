"""Wall time and peak memory of the main job, all processes together.

    python -m benchmarks.main_job

Runs `flwr run simulations/banks_3 --stream` on a Flower of its own, as on a fresh machine:
SuperLink, SuperExec, ServerApp, Ray and ClientApps are all started by it and counted. Memory is the
peak of the sum over processes, twice a second, as resident size (RSS, counts a shared page once for
each process) and as proportional size (PSS, counts it once in all; Linux only). A bare Flower app
that does nothing is measured beside it.
"""

import argparse
import json
import os
import socket
import subprocess
import sysconfig
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from fedistill.cli.guardian import MARKER, marked, stop_all

SCRIPTS = Path(sysconfig.get_path("scripts"))
MIB = 2**20
LIMITS = "150 s", "3,072 MiB"

BARE_APP = {
    "pyproject.toml": """
[project]
name = "bare"
version = "1.0.0"
description = "An app that does nothing"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "fedistill"
[tool.flwr.app.components]
serverapp = "bare:server"
clientapp = "bare:client"
[tool.flwr.app.config]
""",
    "bare.py": """
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@client.query()
def answer(message, context):
    return Message(RecordDict(), reply_to=message)

@server.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        pass
    asked = [Message(RecordDict(), message_type="query", dst_node_id=node) for node in nodes]
    assert len(list(grid.send_and_receive(asked))) == 2
""",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run took: seconds, and peak bytes over all its processes."""

    seconds: float
    rss: int
    pss: int
    status: str


def measure(app: Path, folder: Path) -> Cost:
    """Run an app directory to its end on a Flower of its own."""
    marker = uuid.uuid4().hex
    environment = os.environ | {
        MARKER: marker,
        "FEDISTILL_HOME": str(folder / "home"),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": free_port(),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": free_port(),
        "FLWR_TELEMETRY_ENABLED": "0",
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
    }
    start = time.monotonic()
    command = [str(SCRIPTS / "flwr"), "run", str(app), "--stream"]
    rss = pss = 0
    try:
        with (folder / "log").open("wb") as log:
            flwr = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603
            while flwr.poll() is None:
                now = [memory(process) for process in family(marker)]
                rss, pss = max(rss, sum(r for r, _ in now)), max(pss, sum(p for _, p in now))
                time.sleep(0.5)
        seconds = time.monotonic() - start
        listed = subprocess.run(  # noqa: S603
            [SCRIPTS / "flwr", "list", "--format", "json"],
            env=environment,
            capture_output=True,
            check=True,
        )
        runs = json.loads(listed.stdout)["runs"]
        status = runs[0]["status"] if runs else (folder / "log").read_text()[-500:]
    finally:
        stop_all(marker)
    return Cost(seconds=seconds, rss=rss, pss=pss, status=status)


def family(marker: str) -> set[psutil.Process]:
    """The run's processes; Ray's workers hide their environment, so descendants count too."""
    found = set(marked(marker))
    for process in list(found):
        try:
            found |= set(process.children(recursive=True))
        except psutil.Error:
            continue
    return found


def memory(process: psutil.Process) -> tuple[int, int]:
    """Resident and proportional size in bytes; zeros for a process that is gone."""
    try:
        info = process.memory_full_info()
        return int(info.rss), int(getattr(info, "pss", info.rss))
    except psutil.Error:
        return 0, 0


def free_port() -> str:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def main() -> None:
    """Measure the bare app and the main job, print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--app", type=Path, default=Path("simulations/banks_3"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b", ignore_cleanup_errors=True) as folder:
        places = {name: Path(folder) / name for name in ("bare", "job", "app")}
        for place in places.values():
            place.mkdir()
        for name, text in BARE_APP.items():
            (places["app"] / name).write_text(text)
        bare = measure(places["app"], places["bare"])
        job = measure(arguments.app.resolve(), places["job"])
    table = Table(title="Main job against a Flower app that does nothing")
    for column in ("", "status", "wall time", "peak RSS, summed", "peak PSS, summed"):
        table.add_column(column, justify="right")
    for name, cost in (("bare Flower app", bare), (str(arguments.app), job)):
        table.add_row(
            name,
            cost.status,
            f"{cost.seconds:.0f} s",
            f"{cost.rss / MIB:,.0f} MiB",
            f"{cost.pss / MIB:,.0f} MiB",
        )
    ratios = job.seconds / bare.seconds, job.rss / bare.rss, job.pss / bare.pss
    table.add_row("ratio", "", *(f"{ratio:.2f}" for ratio in ratios))
    table.add_row("asked of the job", "", f"below {LIMITS[0]}", "", f"below {LIMITS[1]}")
    Console().print(table)


if __name__ == "__main__":
    main()
