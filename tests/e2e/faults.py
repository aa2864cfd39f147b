"""A deployed federation whose processes can be killed, cut off and started again."""

import json
import selectors
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from fedistill.federation.progress import VARIABLE
from tests.deployed import run_config
from tests.e2e.conftest import SCRIPTS, Flower, free_port
from tests.e2e.test_deployed import Federation, answers

SERVER_APP = "flwr-serverapp"
CONFIG = {"phase-timeout": 150.0, "prune-ratio": 0.3}


class Breakable(Federation):
    """A `Federation` whose SuperLink remembers, and may be killed like everything else."""

    def __init__(self, flower: Flower) -> None:
        self.progress = flower.folder / VARIABLE.lower()
        flower.environment[VARIABLE] = str(self.progress)
        super().__init__(flower)
        self.supernodes: dict[str, subprocess.Popen[str]] = {}
        self.port = free_port()
        self.entrance = dict.fromkeys(self.sites, self.port)
        self.superlink = self.start_superlink()

    def start_superlink(self) -> subprocess.Popen[str]:
        """A SuperLink on the same port and database as the one before."""
        home = Path(self.flower.environment["FLWR_HOME"])
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "own"\n\n[superlink.own]\naddress = "127.0.0.1:{self.port}"\n'
            "insecure = true\n"
        )
        self.superlink = self.log(
            "superlink",
            SCRIPTS / "flower-superlink",
            *("--insecure", "--host", "127.0.0.1", "--port", self.port),
            *("--database", self.folder / "superlink.db"),
            "--disable-runtime-dependency-installation",
        )
        self.until(lambda: answers(self.port), "the SuperLink")
        return self.superlink

    def start_supernode(self, name: str) -> None:
        """The SuperNode of a site, through the site's entrance to the SuperLink."""
        self.supernodes[name] = self.log(
            f"supernode-{name}",
            SCRIPTS / "flower-supernode",
            *("--insecure", "--superlink", f"127.0.0.1:{self.entrance[name]}"),
            *("--port", free_port()),
            *("--node-config", f'site-socket="{self.sites[name].socket}"'),
        )

    def begin(self, *options: str, **changes: object) -> subprocess.Popen[str]:
        """`fedistill run`, its output in run.log."""
        flat = run_config(self.folder) | CONFIG | changes
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in flat.items())
        with (self.folder / "run.log").open("a") as file:
            return subprocess.Popen(
                [SCRIPTS / "fedistill", "run", "server", "own", "-c", config, *options],
                env=self.flower.environment,
                cwd=Path(__file__).parents[2],
                stdout=file,
                stderr=file,
                text=True,
            )

    def output(self) -> str:
        """All that `fedistill run` has printed."""
        path = self.folder / "run.log"
        return path.read_text() if path.exists() else ""

    def phases(self) -> list[str]:
        """Phases of the workflow's steps so far, in any try."""
        if not self.progress.exists():
            return []
        lines = self.progress.read_text().splitlines(keepends=True)
        return [json.loads(line)["phase"] for line in lines if line.endswith("\n")]

    def last_phase(self) -> str:
        """The phase that a run is in, or has ended in; `start` before the first."""
        return ["start", *self.phases()][-1]

    def wait_for(self, phase: str, run: subprocess.Popen[str]) -> None:
        """Until the workflow is in `phase`."""

        def reached() -> bool:
            assert run.poll() is None, f"{self.output()}\n{self.logs()}"
            return phase in self.phases()

        self.until(reached, f"phase {phase}")

    def kill_server_app(self) -> None:
        """kill -9; a run may have two processes of that name for a moment after the other's end."""
        for process in self.flower.processes():
            if _runs(process, SERVER_APP):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def kill_superlink(self) -> None:
        """kill -9, without its children."""
        self.superlink.kill()
        self.superlink.wait(timeout=60)

    def kill_supernode(self, name: str) -> None:
        """kill -9."""
        self.supernodes[name].kill()
        self.supernodes[name].wait(timeout=60)

    def kill_agent(self, name: str) -> None:
        """kill -9."""
        self.agents[name].kill()
        self.agents[name].wait(timeout=60)

    def restart_agent(self, name: str) -> None:
        """An agent again, once it answers."""
        self.sites[name].socket.unlink(missing_ok=True)
        self.agents[name] = self.start_agent(self.sites[name])
        self.until(self.sites[name].socket.exists, f"the agent of {name}")

    def stop(self) -> None:
        """End everything; agents last, who then let go of their ledgers."""
        processes = [self.superlink, *self.supernodes.values(), *self.others]
        for process in [*processes, *self.agents.values()]:
            process.terminate()
        for process in [*processes, *self.agents.values()]:
            process.wait(timeout=90)

    def charges(self) -> list[int]:
        """Charges of every site, while its agent lives."""
        return [site.charges() for site in self.sites.values()]


class Proxy:
    """A way to a local TCP port that can be cut and mended."""

    def __init__(self, port: str) -> None:
        self._target = int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = str(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._whole = threading.Event()
        self._whole.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._whole.clear()
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def mend(self) -> None:
        """Let new connections through."""
        self._whole.set()

    def close(self) -> None:
        """Cut for good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._whole.is_set():
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                self._pairs.append((client, server))
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()


def _pump(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    with selectors.DefaultSelector() as selector, suppress(OSError), client, server:
        for end in other:
            selector.register(end, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if not (data := source.recv(65_536)):
                    return
                other[source].sendall(data)


def _runs(process: psutil.Process, name: str) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and any(word.endswith(name) for word in process.cmdline()[:3])
    except psutil.Error:
        return False
