"""Processes of a federation on one machine, each as on a machine of its own, started and ended."""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from fedistill.cli.dev_files import provision, write_app, write_data, write_sites
from fedistill.cli.dev_folder import SITES, DevFolder, Mark, claim, remove, save_pids
from fedistill.cli.guardian import MARKER, processes, stop_all
from fedistill.cli.isolation import free_ports, signal_handlers, signals_interrupt
from fedistill.cli.simulate import last_words
from fedistill.errors import RunFailed
from fedistill.federation import progress
from fedistill.provision.flower import online, register

SECONDS_TO_START = 300.0

_SCRIPTS = Path(sysconfig.get_path("scripts"))
_TICK = 0.2


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process that runs until it is ended.

    Attributes:
        name: Of the service, and of its log.
        command: An installed command and its arguments.
        environment: What it has beside this process's environment.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]


@dataclass
class Running:
    """Services that were started, and how long that takes."""

    folder: DevFolder
    mark: Mark
    console: Console
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """A line of progress, with the seconds since the start."""
        line = f"{time.monotonic() - self.since:5.1f} s  {text}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def start(self, service: Service) -> None:
        """Start a service, apart from this terminal; its log is a file."""
        environment = environment_of(self.folder, self.mark) | service.environment
        name, *arguments = service.command
        with self.folder.log(service.name).open("ab") as log:
            self.started[service.name] = subprocess.Popen(  # noqa: S603
                [str(_SCRIPTS / name), *arguments],
                env=environment,
                cwd=self.folder.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the command, which ends them itself
            )
        save_pids(self.folder, {each: process.pid for each, process in self.started.items()})

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        """Wait until something is ready, while every service lives.

        Raises:
            RunFailed: A service ended, or it takes too long.
        """
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready():
            if not self.folder.mark.exists():
                raise RunFailed(f"{self.folder.path} was removed meanwhile: fedistill dev down?")
            for name, process in self.started.items():
                if process.poll() is not None:
                    said = last_words(self.folder.log(name))
                    raise RunFailed(f"{name} ended with exit code {process.returncode}: {said}")
            if time.monotonic() > deadline:
                raise RunFailed(f"{what} took more than {SECONDS_TO_START:.0f} s")
            time.sleep(_TICK)


def start(folder: DevFolder, console: Console) -> None:
    """Make a whole federation in the folder, and start it; if that fails, nothing of it is left.

    Raises:
        BadInput: The folder cannot be used; nothing was done.
        RunFailed: A service did not start, or the start was interrupted.
    """
    running = Running(folder, claim(folder), console)
    try:
        with signals_interrupt():
            _start(running)
    except RunFailed as error:
        logs = _keep_logs(folder)
        _undo(running)
        raise RunFailed(f"{error} (logs: {logs})") from error
    except KeyboardInterrupt as interrupt:
        _undo(running)
        raise RunFailed(
            f"interrupted by {interrupt}: no process is left, and {folder.path} is removed"
        ) from None
    except BaseException:
        _undo(running)
        raise


def _undo(running: Running) -> None:
    """End what was started, whoever else interrupts."""
    with signal_handlers(signal.SIG_IGN):
        end(running.folder, running.mark)
        for process in running.started.values():
            process.wait()


def end(folder: DevFolder, mark: Mark) -> int:
    """End every process of the federation and remove its folder: how many there were.

    Raises:
        RunFailed: A process could not be ended; the folder stays, so that it can be found.
        BadInput: The folder cannot be removed.
    """
    count = len(processes(mark.marker))
    stop_all(mark.marker)
    if left := processes(mark.marker):
        raise RunFailed(
            f"process {min(each.pid for each in left)} does not end: end it, then run "
            f"{folder.order('down')} again"
        )
    remove(folder)
    return count


def environment_of(folder: DevFolder, mark: Mark) -> dict[str, str]:
    """What every process of the federation, and `flwr` beside it, has in its environment."""
    return os.environ | {
        MARKER: mark.marker,
        progress.VARIABLE: str(folder.progress),
        "FLWR_HOME": str(folder.workshop.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
        # Flower starts its own commands by name.
        "PATH": os.pathsep.join([str(_SCRIPTS), os.environ.get("PATH", "")]),
    }


def _start(running: Running) -> None:
    folder = running.folder
    port, superlink_port, *ports = free_ports(2 + len(SITES))
    folder.log("any").parent.mkdir(mode=0o700)
    running.say(f"a federation in {folder.path}")
    write_data(folder)
    running.say("rows of three banks, public rows, proxy set")
    provision(folder, port, superlink_port)
    running.say("keys, certificates, startup kits, pins")
    write_sites(folder)
    write_app(folder)
    running.say("policies, ledgers, app directory")
    for service in (_superlink(folder, superlink_port), _front(folder), *_agents(folder)):
        running.start(service)
    running.wait("the SuperLink", lambda: _listens(superlink_port))
    running.say(f"SuperLink with TLS on 127.0.0.1:{superlink_port}")
    running.wait("the front", lambda: _listens(port))
    running.say(f"front on 127.0.0.1:{port}")
    register(folder.workshop, now=datetime.now(UTC))
    running.say("three SuperNodes registered")
    for service in _supernodes(folder, port, ports):
        running.start(service)
    running.wait("an agent", lambda: all(folder.socket(site).exists() for site in SITES))
    running.say("three agents answer")
    running.wait("a SuperNode", lambda: online(folder.workshop) == len(SITES))
    running.say("three SuperNodes are connected")


def _superlink(folder: DevFolder, port: int) -> Service:
    workshop = folder.workshop
    return Service(
        name="superlink",
        command=(
            "flower-superlink",
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--ssl-certfile", str(workshop.server_certificate)),
            *("--ssl-keyfile", str(workshop.server_key)),
            *("--ssl-ca-certfile", str(workshop.ca)),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            *("--database", str(workshop.folder / "state.db")),
        ),
        environment={},
    )


def _front(folder: DevFolder) -> Service:
    project = str(folder.workshop.project_file)
    command = ("fedistill", "provision", "front", "--host", "127.0.0.1", "--project", project)
    return Service(name="front", command=command, environment={})


def _agents(folder: DevFolder) -> Iterator[Service]:
    for site in SITES:
        command = ("fedistill", "site", "start", "--config", str(folder.agent(site)))
        yield Service(name=f"agent-{site}", command=command, environment={})


def _supernodes(folder: DevFolder, server_port: int, ports: list[int]) -> Iterator[Service]:
    for site, port in zip(SITES, ports, strict=True):
        own = folder.site(site)
        yield Service(
            name=f"supernode-{site}",
            command=(
                "flower-supernode",
                *("--superlink", f"127.0.0.1:{server_port}", "--port", str(port)),
                *("--root-certificates", str(own.ca)),
                *("--auth-supernode-private-key", str(own.supernode)),
                *("--node-config", f'site-socket="{folder.socket(site)}"'),
            ),
            environment={"FLWR_HOME": str(folder.path / "run" / f"flower-{site}")},
        )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _keep_logs(folder: DevFolder) -> str:
    """Copy the logs to where they outlive the folder."""
    kept = Path(tempfile.mkdtemp(prefix="fedistill-log-"))
    if folder.log("any").parent.exists():
        shutil.copytree(folder.log("any").parent, kept, dirs_exist_ok=True)
    return str(kept)
