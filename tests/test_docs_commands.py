"""Commands on the pages run: in a file of its own, so that another worker can check the pages."""

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.doc_commands import COMMANDS, HELP, PREPARE, RUN
from tests.own_data import write_own_data
from tests.test_docs import ROOT, blocks


def each_command(how: str) -> pytest.MarkDecorator:
    chosen = [command for command, where in COMMANDS.items() if where == how]
    return pytest.mark.parametrize("command", chosen)


@each_command(RUN)
def test_quick_commands_succeed(command: str) -> None:
    run(*shlex.split(command))


@each_command(HELP)
def test_long_commands_explain_themselves(command: str) -> None:
    run(*shlex.split(command), "--help")


def run(name: str, *arguments: str) -> None:
    """Run an installed command in the repository's root; it must succeed and print."""
    line = [Path(sysconfig.get_path("scripts")) / name, *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page about own data, and what the page about images and text writes."""
    folder = tmp_path_factory.mktemp("data")
    write_own_data(folder)
    for snippet in blocks(ROOT / "docs/images-and-text.md", "python"):
        subprocess.run([sys.executable, "-c", snippet], cwd=folder, check=True, capture_output=True)
    return folder


@each_command(PREPARE)
def test_simulations_pass_every_check_before_flower_starts(
    command: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedistill.cli.application import load_application
    from fedistill.federation.up_front import prepare

    monkeypatch.syspath_prepend(data)
    words = shlex.split(command.replace("/data/", f"{data}/"))
    _, _, directory, *options = [word for word in words if word != "--dry-run"]
    application = load_application(ROOT / directory, options[1::2])
    assert options[::2] == ["-c"] * len(options[1::2])
    assert prepare(application.config).site_names
