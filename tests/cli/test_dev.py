"""A federation on one machine: its folder, its files, and what is left when its start fails."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from fedistill.cli import dev_services
from fedistill.cli.application import load_application
from fedistill.cli.dev_files import provision, write_app, write_data, write_sites
from fedistill.cli.dev_folder import (
    SERVICES,
    SITES,
    DevFolder,
    Mark,
    claim,
    living,
    read_mark,
    save_pids,
)
from fedistill.cli.dev_services import Running, Service, end, environment_of, start
from fedistill.cli.guardian import marked
from fedistill.errors import BadInput, RunFailed
from fedistill.federation.deployment import open_deployment
from fedistill.federation.simulation import prepare_data
from fedistill.privacy.ledger_key import load_key
from fedistill.provision.peers import peers_of
from fedistill.site import Policy
from fedistill.site.site_config import SiteConfig, load_proxy, load_rows

BANKS = Path(__file__).parents[2] / "simulations" / "banks_3"


@pytest.fixture
def folder() -> Iterator[DevFolder]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as parent:
        yield DevFolder(Path(parent) / "dev")


@pytest.fixture(scope="module")
def made() -> Iterator[DevFolder]:
    """All files of a federation that was not started."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as parent:
        folder = DevFolder(Path(parent) / "dev")
        claim(folder)
        write_data(folder)
        provision(folder, 9092, 9093)
        write_sites(folder)
        write_app(folder)
        yield folder


def sleeper(folder: DevFolder, mark: Mark) -> subprocess.Popen[bytes]:
    """A process of the federation, in a session of its own."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return subprocess.Popen(command, env=environment_of(folder, mark), start_new_session=True)


def test_a_folder_has_one_federation(folder: DevFolder) -> None:
    mark = claim(folder)
    with pytest.raises(BadInput, match=r"has a federation already.*fedistill dev down --folder"):
        claim(folder)
    assert read_mark(folder) == mark
    assert end(folder, mark) == 0
    assert not folder.path.exists()
    assert claim(folder) != mark


def test_what_a_kill_left_before_the_mark_is_no_hindrance(folder: DevFolder) -> None:
    folder.path.mkdir()
    (folder.path / "0.partial").write_text("{")
    end(folder, claim(folder))
    assert not folder.path.exists()


def test_a_folder_with_other_things_is_neither_taken_nor_removed(folder: DevFolder) -> None:
    folder.path.mkdir()
    own = folder.path / "thesis.txt"
    own.write_text("years of work")
    with pytest.raises(BadInput, match="must be empty or not there yet"):
        claim(folder)
    with pytest.raises(BadInput, match="is no federation of fedistill dev: nothing was done"):
        read_mark(folder)
    for text in ("", "{}", '{"format": "fedistill dev 2", "marker": "%s"}' % ("0" * 32)):
        folder.mark.write_text(text)
        with pytest.raises(BadInput, match="was not written by fedistill dev up"):
            read_mark(folder)
    assert own.read_text() == "years of work"


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    with pytest.raises(BadInput, match="must be at most 100: choose a shorter folder"):
        claim(DevFolder(path))
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_refused(folder: DevFolder) -> None:
    folder.path.write_text("a file")
    with pytest.raises(BadInput, match="cannot be written"):
        claim(folder)


def test_the_end_finds_processes_that_nobody_wrote_down(folder: DevFolder) -> None:
    mark = claim(folder)
    process = sleeper(folder, mark)
    assert living(folder, mark) == dict.fromkeys(SERVICES)
    assert end(folder, mark) == 1
    process.wait(timeout=10)
    assert not psutil.pid_exists(process.pid)
    assert not folder.path.exists()


def test_a_number_that_another_process_got_is_not_the_service(folder: DevFolder) -> None:
    mark = claim(folder)
    process = sleeper(folder, mark)
    save_pids(folder, {"superlink": process.pid, "front": os.getpid()})
    found = living(folder, mark)
    assert found["superlink"] == psutil.Process(process.pid)
    assert found["front"] is None
    end(folder, mark)
    process.wait(timeout=10)


def test_banks_have_the_rows_of_the_simulation_and_nobody_else_has_them(made: DevFolder) -> None:
    simulated = prepare_data(load_application(BANKS, []).config)
    deployed = open_deployment(load_application(made.app, []).config)
    assert deployed.proxy == simulated.proxy
    assert deployed.classes == simulated.classes
    assert np.array_equal(deployed.test.rows, simulated.test.rows, equal_nan=True)
    assert np.array_equal(deployed.test.labels, simulated.test.labels)
    for site in SITES:
        config = SiteConfig.load(made.agent(site))
        rows, misfits = load_rows(config, Policy.load(config.policy_path), load_proxy(config))
        assert misfits == ""
        assert np.array_equal(rows.rows, simulated.sites[site].rows, equal_nan=True)
        assert np.array_equal(rows.labels, simulated.sites[site].labels)


def test_banks_are_provisioned_and_pin_each_other(made: DevFolder) -> None:
    keys = {site: load_key(made.site(site).identity).public for site in SITES}
    for site in SITES:
        policy = Policy.load(made.site(site).policy)
        assert policy.secure_aggregation == "required"
        assert policy.peers == {}
        others = {name: key for name, key in keys.items() if name != site}
        assert peers_of(made.site(site), policy) == others
        assert made.site(site).path.stat().st_mode & 0o077 == 0
    assert tomllib.loads((made.workshop.project_file).read_text())["superlink-port"] == 9093


def test_a_service_that_ends_is_named_with_its_last_words(folder: DevFolder) -> None:
    running = Running(folder, claim(folder), Console(quiet=True))
    folder.log("any").parent.mkdir()
    command = ("fedistill", "site", "start", "--config", "nowhere.toml")
    running.start(Service(name="agent-bank_a", command=command, environment={}))
    with pytest.raises(RunFailed, match=r"agent-bank_a ended with exit code 2: .*nowhere"):
        running.wait("an agent", lambda: False)
    end(folder, running.mark)


def test_a_start_that_fails_leaves_its_logs_and_nothing_else(
    folder: DevFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def broken(*_: object) -> Service:
        return Service(name="superlink", command=("fedistill", "nonsense"), environment={})

    monkeypatch.setattr(dev_services, "_superlink", broken)
    with pytest.raises(RunFailed, match=r"superlink ended with exit code 2: .*nonsense.*logs: "):
        start(folder, Console(quiet=True))
    assert not folder.path.exists()
    (kept,) = tmp_path.glob("fedistill-log-*")
    assert "nonsense" in (kept / "superlink.log").read_text()


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert any(word in line for line in process.stdout), process.communicate()


def test_an_interrupted_start_leaves_nothing(folder: DevFolder, start_fedistill) -> None:
    process = start_fedistill("dev", "up", "--folder", folder.path)
    read_until(process, "app directory")
    marker = read_mark(folder).marker
    time.sleep(1)  # the first services are being started
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted by SIGINT: no process is left" in errors
    assert list(marked(marker)) == []
    assert not folder.path.exists()


def test_down_ends_what_a_killed_start_left(folder: DevFolder, start_fedistill, fedistill) -> None:
    process = start_fedistill("dev", "up", "--folder", folder.path)
    read_until(process, "app directory")
    until(lambda: folder.pids.exists())
    process.kill()
    process.wait()
    marker = read_mark(folder).marker
    assert list(marked(marker)) != []
    again = fedistill("dev", "up", "--folder", folder.path)
    assert (again.returncode, again.stdout) == (2, "")
    assert f"fedistill dev down --folder {folder.path}" in again.stderr
    status = fedistill("dev", "status", "--folder", folder.path)
    assert status.returncode == 1
    assert "supernode-bank_c must run" in status.stderr
    run = fedistill("dev", "run", "--folder", folder.path)
    assert (run.returncode, run.stdout) == (1, "")
    down = fedistill("dev", "down", "--folder", folder.path)
    assert down.returncode == 0, down.stderr
    assert list(marked(marker)) == []
    assert not folder.path.exists()


def test_without_a_federation_every_command_says_what_to_do(folder: DevFolder, fedistill) -> None:
    for command in ("run", "status", "down"):
        done = fedistill("dev", command, "--folder", folder.path)
        assert done.returncode == 2
        assert f"fedistill dev up --folder {folder.path} makes one" in done.stderr


def until(ready) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)
