"""The page about provisioning, block by block, against the real SuperLink, front and SuperNodes."""

import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import tomli_w

from fedistill.data import ProxySet, infer_schema
from fedistill.data.coding import code_rows
from fedistill.data.loaders import load_table
from fedistill.site.policy import Policy
from tests.e2e.conftest import REPOSITORY, SCRIPTS, free_port

pytestmark = pytest.mark.e2e

PAGE = REPOSITORY / "docs" / "provisioning.md"
SITES = ("bank_a", "bank_b", "bank_c")
SERVICES = ("flower-superlink", "fedistill provision front", "flower-supernode")
DEADLINE = 60.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


@dataclass
class Reader:
    """Who follows the page on one machine, with ports of their own."""

    folder: Path
    environment: dict[str, str]
    port: str
    superlink_port: str
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def own(self, text: str) -> str:
        """The page's text, with this reader's host and ports."""
        text = text.replace("fl.example.org", "127.0.0.1").replace("9092", self.port)
        return text.replace("9093", self.superlink_port)

    def follow(self, text: str, code: int = 0) -> str:
        """Run a block to its end: what it printed."""
        done = subprocess.run(
            ["bash", "-eu", "-c", self.own(text)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
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
        (command,) = (block for block in blocks("sh") if block.startswith("flower-supernode"))
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


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FEDISTILL_HOME": str(tmp_path / "home"),
        "PATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", "")]),
    }
    reader = Reader(tmp_path, environment, free_port(), free_port())
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


def write_loans(folder: Path) -> str:
    """`loans.csv`, the proxy set of its first rows, and the hash that a policy approves."""
    random = np.random.default_rng(0)
    income = random.normal(50, 10, 300)
    lines = [f"{x:.2f},{x / 3:.2f},{'yes' if x < 45 else 'no'}" for x in income]
    (folder / "loans.csv").write_text("\n".join(["income,debt,defaulted", *lines]) + "\n")
    table = load_table(str(folder / "loans.csv"), label_column="defaulted")
    index = np.arange(100)
    schema = infer_schema(table.columns, index)
    proxy = ProxySet(schema=schema, rows=code_rows(table.columns, schema, index)[0])
    proxy.save(folder / "proxy.bin")
    return proxy.sha256


def write_policy(reader: Reader, proxy_sha256: str) -> None:
    clauses = Policy.load(REPOSITORY / "clients" / "policy.toml").model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    clauses |= {"proxy-sha256": [proxy_sha256], "rows-at-least": 200}
    path = reader.folder / "bank_a" / "policy.toml"
    path.write_text(tomli_w.dumps(clauses))
    path.chmod(0o600)


def test_the_page_works_and_strangers_and_revoked_sites_stay_out(reader: Reader) -> None:
    (reader.folder / "project.toml").write_text(reader.own(blocks("toml")[0]))
    todo = iter(blocks("sh"))

    def page(first: str, code: int = 0) -> str:
        block = next(todo)
        assert block.startswith(first), block
        return reader.follow(block, code)

    page("fedistill provision init")
    page("fedistill site init")
    assert page("fedistill provision sign").count(" unknown ") == 3
    superlink, front = reader.start(next(todo)), reader.start(next(todo))
    reader.until(lambda: reader.answers(reader.superlink_port), "SuperLink")
    reader.until(lambda: reader.answers(reader.port), "front")
    page("fedistill provision register")
    assert "not compared yet: bank_b" in page("fedistill site join")
    page("fedistill site pin")
    write_policy(reader, write_loans(reader.folder))
    page("fedistill site preflight")
    assert "ok" in page("fedistill site preflight --dir bank_a --data")
    supernode = next(todo)
    assert supernode.startswith("flower-supernode")

    staying, leaving = reader.start_supernode("bank_a"), reader.start_supernode("bank_c")
    stranger = start_stranger(reader)
    assert reader.connects(staying)
    assert reader.connects(leaving)
    assert not reader.connects(stranger)
    the_open_port_leads_to_no_control_api(reader)

    assert "bank_c is revoked" in page("fedistill provision revoke")
    assert reader.online() == 1
    leaving.terminate()
    leaving.wait(timeout=15)
    again = reader.start_supernode("bank_c")
    page("fedistill site join")
    assert "bank_c" not in (reader.folder / "bank_a" / "pins.toml").read_text()
    assert not reader.connects(again)

    page("fedistill site init bank_c --dir bank_c --new-keys")
    assert reader.connects(reader.start_supernode("bank_c"))
    page("fedistill provision renew")
    assert next(todo, None) is None
    assert superlink.poll() is None
    assert front.poll() is None


def the_open_port_leads_to_no_control_api(reader: Reader) -> None:
    for path in ("/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/get-nodes"):
        assert reader.post(reader.superlink_port, path) != 404  # it is there, behind
        assert reader.post(reader.port, path) == 404
    for path in ("/v1/fleet/%2e%2e/control/list-runs", "//v1/fleet/pull-messages", "/docs"):
        assert reader.post(reader.port, path) == 404


def start_stranger(reader: Reader) -> subprocess.Popen[bytes]:
    """Somebody with the project's certificate and keys of their own."""
    reader.follow("fedistill site init stranger --dir stranger")
    (reader.folder / "stranger" / "ca.crt").write_bytes((reader.folder / "ca.crt").read_bytes())
    return reader.start_supernode("stranger")
