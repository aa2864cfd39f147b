"""The examples in `server` and `clients`: what they start exists, and takes these options."""

import configparser
import os
import re
import shlex
import subprocess
import sysconfig
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
def test_units_run_as_a_user_of_their_own_who_can_write_little(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["User"] != "root"
    assert service["ProtectSystem"] == "strict"
    assert service["UMask"] == "0077"


def test_the_example_policy_is_one() -> None:
    policy = Policy.load(ROOT / "clients" / "policy.toml")
    assert policy.delta * policy.rows_at_least < 1
