"""Who follows a page of the docs block by block, with the real SuperLink, front and SuperNodes."""

import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.conftest import SCRIPTS, free_port

DEADLINE = 180.0


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a page in one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


@dataclass
class Reader:
    """Who follows a page on one machine, with ports of their own."""

    page: Path
    folder: Path
    environment: dict[str, str]
    port: str
    superlink_port: str
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def own(self, text: str) -> str:
        """The page's text, with this reader's host and ports."""
        text = text.replace("fl.example.org", "127.0.0.1").replace("9092", self.port)
        text = text.replace("/run/", f"{self.folder}/run/")
        return text.replace("9093", self.superlink_port)

    def follow(self, text: str, code: int = 0) -> str:
        """Run a block to its end: what it printed."""
        done = subprocess.run(
            ["bash", "-eu", "-c", self.own(text)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == code, text + done.stdout + done.stderr
        for site, groups in re.findall(r"fingerprint of (\w+):\n  (\S+)", done.stdout):
            self.environment[site.upper()] = groups
        return done.stdout + done.stderr

    def start(self, text: str) -> subprocess.Popen[bytes]:
        """Start a service; its log is a file."""
        log = self.folder / f"service{len(self.services)}.log"
        with log.open("wb") as out:
            service = subprocess.Popen(
                ["bash", "-c", f"exec {self.own(text)}"],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.services.append(service)
        return service

    def start_supernode(self, site: str) -> subprocess.Popen[bytes]:
        """As the page says, for any of the sites, with a port and a home of its own."""
        (command,) = (
            block for block in blocks(self.page, "sh") if block.startswith("flower-supernode")
        )
        home = self.folder / f"flwr-{site}"
        text = command.replace("bank_a", site).replace("\\\n", "").strip()
        return self.start(f"env FLWR_HOME={home} {text} --max-retries 2 --port {free_port()}")

    def log(self, service: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"service{self.services.index(service)}.log").read_text()

    def connects(self, service: subprocess.Popen[bytes]) -> bool:
        """Whether the SuperLink has let a SuperNode in; False once it has given up."""
        self.until(
            lambda: "SuperNode ID" in self.log(service) or service.poll() is not None, "connect"
        )
        return "SuperNode ID" in self.log(service)

    def online(self) -> int:
        """How many SuperNodes the SuperLink says are connected."""
        listed = self.follow("FLWR_HOME=$PWD/flower flwr supernode list fedistill --format json")
        return sum(node["status"] == "online" for node in json.loads(listed)["nodes"])

    def post(self, port: str, path: str) -> int:
        trust = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        url = f"https://127.0.0.1:{port}{path}"
        headers = {"content-type": "application/x-protobuf"}
        return httpx.post(url, verify=trust, trust_env=False, headers=headers).status_code

    def until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not true():
            logs = "\n".join(self.log(service)[-2000:] for service in self.services)
            assert time.monotonic() < deadline, f"{what}\n{logs}"
            time.sleep(0.3)

    def answers(self, port: str) -> bool:
        try:
            return self.post(port, "/") >= 400
        except httpx.HTTPError:
            return False


@contextmanager
def reading(page: Path, folder: Path) -> Iterator[Reader]:
    """A reader in a folder; the services that they started end with it."""
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(folder / "flwr"),
        "FEDISTILL_HOME": str(folder / "home"),
        "PATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", "")]),
    }
    reader = Reader(page, folder, environment, free_port(), free_port())
    try:
        yield reader
    finally:
        for service in reversed(reader.services):
            service.terminate()
        for service in reader.services:
            try:
                service.wait(timeout=10)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
