"""The examples in `server` and `clients`: what they start exists, and takes these options."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from fedistill.provision.project import Project
from fedistill.site.policy import Policy

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
UNITS = sorted(path for part in ("server", "clients") for path in (ROOT / part).glob("*.service"))
COMPOSE = [ROOT / "server" / "compose.yaml", ROOT / "clients" / "compose.yaml"]

HARDENED = {
    "Restart": "always",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "RestrictNamespaces": "yes",
    "SystemCallFilter": "@system-service",
    "LimitCORE": "0",  # a core file has the memory, rows and keys included
    "UMask": "0077",
}
COMPOSE_KEYS = {
    *("image", "command", "user", "working_dir", "environment", "volumes", "ports", "tmpfs"),
    *("network_mode", "depends_on", "read_only", "cap_drop", "security_opt", "mem_limit"),
    *("stop_grace_period", "healthcheck", "restart"),
}
"""Keys of a service, of those in the Compose Specification, that are used here."""


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def unit_command(path: Path) -> list[str]:
    program, *arguments = shlex.split(unit(path)["Service"]["ExecStart"])
    return [Path(program).name, *arguments]


def services(path: Path) -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load(path.read_text())["services"])


def compose_commands(path: Path) -> dict[str, list[str]]:
    return {name: shlex.split(str(each["command"])) for name, each in services(path).items()}


def all_commands() -> list[list[str]]:
    return [
        *map(unit_command, UNITS),
        *(command for path in COMPOSE for command in compose_commands(path).values()),
    ]


@cache
def help_of(*command: str) -> str:
    line = [SCRIPTS / command[0], *command[1:], "--help"]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(
        line, capture_output=True, text=True, check=True, env=environment, timeout=60
    ).stdout


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: " ".join(command[:3]))
def test_each_command_exists_and_knows_its_options(command: list[str]) -> None:
    options = [word for word in command if word.startswith("--")]
    first = command.index(options[0])
    known = re.findall(r"--[a-z-]+", help_of(*command[:first]))
    assert set(options) <= set(known)


def test_units_compose_and_page_start_the_same() -> None:
    page = (ROOT / "docs" / "provisioning.md").read_text().replace("\\\n", "")
    server, clients = map(compose_commands, COMPOSE)
    superlink = unit_command(ROOT / "server" / "superlink.service")
    assert superlink == server["superlink"]
    assert superlink == shlex.split(re.search(r"^flower-superlink .*$", page, re.M)[0])  # type: ignore[index]
    assert unit_command(ROOT / "server" / "front.service") == server["front"]
    assert unit_command(ROOT / "clients" / "supernode.service") == clients["supernode"]
    said = re.search(r"^flower-supernode .*$", page, re.M)[0]  # type: ignore[index]
    here = said.replace("/run/bank_a/", "/run/fedistill/").replace("bank_a/", "")
    assert clients["supernode"] == shlex.split(here)
    assert unit_command(ROOT / "clients" / "site-agent.service") == clients["agent"]


def test_the_superlink_is_on_loopback_and_only_the_front_is_open() -> None:
    project = Project.load(ROOT / "server" / "project.toml")
    for command in all_commands():
        if command[0] == "flower-superlink":
            assert command[command.index("--host") + 1] == "127.0.0.1"
            assert command[command.index("--port") + 1] == str(project.superlink_port)
            assert "--enable-supernode-auth" in command
            assert "--insecure" not in command
        if command[0] == "flower-supernode":
            assert command[command.index("--superlink") + 1] == project.address
    server = services(COMPOSE[0])
    assert server["superlink"]["ports"] == [f"{project.port}:{project.port}"]
    assert server["front"]["network_mode"] == "service:superlink"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_run_as_a_user_of_their_own_who_can_do_little(path: Path) -> None:
    service = unit(path)["Service"]
    users = [unit(each)["Service"]["User"] for each in path.parent.glob("*.service")]
    assert users.count(service["User"]) == 1
    assert service["User"] != "root"
    for key, value in HARDENED.items():
        assert service[key] == value, key
    assert int(service["RestartSec"]) > 0
    assert re.fullmatch(r"\d+[MG]", service["MemoryMax"])


def test_the_agent_has_no_network_and_its_folder_is_closed_to_the_supernode() -> None:
    agent, supernode = (
        unit(ROOT / "clients" / f"{name}.service")["Service"]
        for name in ("site-agent", "supernode")
    )
    assert agent["PrivateNetwork"] == "yes"
    assert agent["RestrictAddressFamilies"] == "AF_UNIX"
    assert agent["Group"] == supernode["User"]
    assert agent["RuntimeDirectoryMode"] == "0750"
    assert supernode["InaccessiblePaths"] == f"-{agent['WorkingDirectory']}"
    config = tomllib.loads((ROOT / "clients" / "agent.toml").read_text())
    socket = Path(config["socket-path"])
    assert socket.parent == Path("/run") / agent["RuntimeDirectory"]
    assert f'site-socket="{socket}"' in supernode["ExecStart"]


def test_the_drop_in_for_metrics_opens_loopback_alone() -> None:
    drop_in = unit(ROOT / "clients" / "metrics.conf")["Service"]
    assert drop_in["IPAddressDeny"] == "any"
    assert drop_in["IPAddressAllow"] == "localhost"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_units_and_finds_them_closed(path: Path, tmp_path: Path) -> None:
    for other in path.parent.glob("*.service"):
        # The program's place is that of an installation; anything executable stands in for it.
        (tmp_path / other.name).write_text(other.read_text().replace("/opt/fedistill/bin", "/bin"))
        text = (tmp_path / other.name).read_text()
        program = shlex.split(unit(other)["Service"]["ExecStart"])[0]
        (tmp_path / other.name).write_text(text.replace(f"/bin/{Path(program).name}", "/bin/true"))
    drop_in = tmp_path / "site-agent.service.d"
    drop_in.mkdir()
    shutil.copy(ROOT / "clients" / "metrics.conf", drop_in)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / path.name],
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stderr
    assert path.name not in verified.stderr, verified.stderr
    graded = ["systemd-analyze", "security", "--offline=true", "--threshold=20", path]
    done = subprocess.run(graded, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_containers_have_the_keys_that_compose_knows_and_no_rights(path: Path) -> None:
    assert yaml.safe_load(path.read_text()).keys() == {"services"}
    users = []
    for name, service in services(path).items():
        assert service.keys() <= COMPOSE_KEYS, name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"\d+[mg]", str(service["mem_limit"]))
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service["user"]))
        users.append(str(service["user"]).partition(":")[0])
        for volume in map(str, service["volumes"]):  # type: ignore[call-overload]
            assert re.fullmatch(r"\./\w+:/[\w/]+(:ro)?", volume)
    assert len(set(users)) == len(users)


def test_the_supernode_s_container_sees_no_file_of_the_site() -> None:
    clients = services(COMPOSE[1])
    agent, supernode = (set(map(str, clients[name]["volumes"])) for name in ("agent", "supernode"))  # type: ignore[call-overload]
    assert agent & supernode == {"./run:/run/fedistill"}
    assert clients["agent"]["network_mode"] == "none"


def page_commands(part: str) -> list[list[str]]:
    """Commands of the README of `server` or `clients`."""
    found = re.findall(r"^```sh\n(.*?)^```$", (ROOT / part / "README.md").read_text(), re.M | re.S)
    return [shlex.split(line) for line in "".join(found).splitlines()]


@pytest.mark.parametrize("part", ["server", "clients"])
def test_the_pages_make_the_users_and_folders_that_the_units_name(part: str) -> None:
    lines = page_commands(part)
    made = {line[-1] for line in lines if line[0] == "useradd"}
    folders = {
        (line[line.index("-o") + 1], line[line.index("-m") + 1], line[-1])
        for line in lines
        if line[:2] == ["install", "-d"]
    }
    units = {path.name: unit(path)["Service"] for path in UNITS if path.parent.name == part}
    assert made == {service["User"] for service in units.values()}
    for service in units.values():
        assert (service["User"], "0700", service["WorkingDirectory"]) in folders
        assert Path(shlex.split(service["ExecStart"])[0]).parent == Path("/opt/fedistill/bin")
    (started,) = (line[3:] for line in lines if line[:3] == ["systemctl", "enable", "--now"])
    assert set(started) == units.keys()
    for line in lines:
        copied = [word for word in line[1:] if word.startswith(f"{part}/")]
        assert all((ROOT / word).is_file() for word in copied)


@pytest.mark.parametrize(
    "line",
    [line for part in ("server", "clients") for line in page_commands(part) if line[0] == "sudo"],
    ids=lambda line: " ".join(line[3:7]),
)
def test_what_the_pages_run_as_a_user_exists_and_knows_its_options(line: list[str]) -> None:
    start = next(i for i, word in enumerate(line) if word.startswith("/opt/fedistill/bin/"))
    program, *arguments = [Path(line[start]).name, *line[start + 1 :]]
    depth = {"fedistill": 2, "flwr": 1}[program]
    known = re.findall(r"--[a-z-]+", help_of(program, *arguments[:depth]))
    assert {word for word in arguments if word.startswith("--")} <= set(known)


def test_the_example_policy_is_one() -> None:
    policy = Policy.load(ROOT / "clients" / "policy.toml")
    assert policy.delta * policy.rows_at_least < 1
