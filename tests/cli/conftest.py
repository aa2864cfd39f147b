import subprocess
import sysconfig
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from fedistill.config import RunConfig
from tests.deployed import Site, write_federation

COMMAND = Path(sysconfig.get_path("scripts")) / "fedistill"

PYPROJECT = """
[project]
name = "throwaway"
version = "0.1.0"
description = "An app of a test"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedistill"

[tool.flwr.app.components]
serverapp = "throwaway:server"
clientapp = "throwaway:client"

[tool.flwr.app.config]
"""

THROWAWAY = """
import json, os, time
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

def tell(**line):
    with open(os.environ["FEDISTILL_PROGRESS"], "a") as file:
        file.write(json.dumps(line | {"time": time.time()}) + "\\n")

@server.main()
def main(grid, context):
    tell(phase="throwaway", done=1, total=9, message="here")
"""


def write_app(folder: Path, main: str) -> Path:
    """A Flower app with every key, whose ServerApp reports one step and then runs `main`."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT + tomli_w.dumps(RunConfig().to_flat()))
    (folder / "throwaway.py").write_text(THROWAWAY + textwrap.indent(main, "    ") + "\n")
    return folder


@pytest.fixture
def make_app(tmp_path):
    """Write an app of one's own `main`."""
    return lambda main: write_app(tmp_path / "app", main)


@pytest.fixture
def app(make_app):
    """An app that does nothing."""
    return make_app("pass")


@pytest.fixture
def temporary(monkeypatch):
    """The folder for temporary files; its path is short, since Ray puts sockets into it."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def fedistill(temporary):
    """Run the installed command."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [COMMAND, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    return run


@pytest.fixture
def start_fedistill(temporary):
    """Start the installed command, as the leader of a group as in a terminal."""
    started = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [COMMAND, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def site() -> Iterator[Site]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        sites, _ = write_federation(Path(folder))
        yield sites["bank_a"]
