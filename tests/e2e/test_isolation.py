"""SuperNode and courier as another OS user: what they can do, and what code of a run cannot."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedistill
from fedistill.evaluate.summary import read_summary
from tests.deployed import SITES
from tests.e2e.conftest import SCRIPTS, Flower, free_port
from tests.e2e.test_deployed import NOBODY, Federation
from tests.federation.deployed_secrets import encodings, rows_and_key, twin_of, unnoised_codes
from tests.relays import Relay

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NOT_THE_COURIER_S = {"torch", "ray", "sklearn", "scipy", "onnx", "onnxruntime", "opendp", "pyarrow"}
"""Packages that the other user's environment lacks: a courier does without them."""

THIEF = '''
"""A ClientApp that takes what it can get."""
import dataclasses, json, socket
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient

app = ClientApp()


@app.query("steal")
def steal(message, context):
    got = {}
    for path in message.content.config_records["wanted"]["paths"]:
        try:
            got[path] = open(path, "rb").read().hex()
        except OSError as error:
            got[path] = type(error).__name__
    owner = message.content.config_records["wanted"]["owner"]
    try:
        socket.socket(socket.AF_UNIX).connect(owner)
        got["owner socket"] = "connected"
    except OSError as error:
        got["owner socket"] = type(error).__name__
    with SiteClient(context.node_config["site-socket"]) as client:
        site, _ = client.hello()
        for name, fields in json.loads(message.content.config_records["wanted"]["questions"]):
            question = agent_pb2.Question(site=site, run="666", question=json.dumps(fields))
            status, answer = client.ask("Labels", question)
            got[name] = status + " " + answer.hex()
    return Message(RecordDict({"got": ConfigRecord({"all": json.dumps(got)})}), reply_to=message)
'''

FENCE = '''
"""A ServerApp that writes down what the thief brings."""
import json
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    wanted = json.loads(Path(context.run_config["wanted"]).read_text())
    nodes = list(grid.get_node_ids())
    content = RecordDict({"wanted": ConfigRecord(wanted)})
    out = [Message(content, message_type="query.steal", dst_node_id=node) for node in nodes]
    replies = grid.send_and_receive(out, timeout=240)
    got = [json.loads(reply.content["got"]["all"]) for reply in replies if reply.has_content()]
    Path(context.run_config["loot"]).write_text(json.dumps(got))
'''

PROJECT = """
[project]
name = "thief"
version = "0.1.0"
dependencies = []

[tool.flwr.app]
publisher = "thief"

[tool.flwr.app.components]
serverapp = "thief.fence:app"
clientapp = "thief.client:app"

[tool.flwr.app.config]
wanted = ""
loot = ""
"""


class Apart(Federation):
    """A federation whose SuperNodes run as nobody, with a spy between them and the SuperLink."""

    def start_flower(self, sockets: dict[str, Path]) -> None:
        super().start_flower({})
        for folder in (self.flower.folder, self.folder):
            folder.chmod(0o711)
        python = readable_python()
        home = make_environment(self.folder / "nobody", python)
        spied = free_port()
        self.spy = Relay(int(spied), int(self.port)).__enter__()
        for name, path in sockets.items():
            for place in (path.parent, path):
                os.chown(place, -1, NOBODY)
            with (self.folder / f"supernode-{name}.log").open("a") as log:
                node = subprocess.Popen(
                    [
                        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
                        *("--inh-caps=-all", str(home / "bin" / "flower-supernode")),
                        *("--insecure", "--superlink", f"127.0.0.1:{spied}"),
                        *("--port", free_port(), "--node-config", f'site-socket="{path}"'),
                    ],
                    env={
                        "PATH": f"{home / 'bin'}:/usr/bin:/bin",
                        "PYTHONPATH": str(home / "packages"),
                        "HOME": str(home / name),
                        "FLWR_HOME": str(home / name),
                        "TMPDIR": str(home / name),
                        "FLWR_TELEMETRY_ENABLED": "0",
                        "FLWR_DISABLE_UPDATE_CHECK": "1",
                    },
                    cwd=home / name,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            self.others.append(node)


def readable_python() -> Path:
    """An interpreter of this version that every user may run."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can start a process of another user")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for path in (
        Path(sys.base_prefix) / "bin" / f"python{version}",
        Path(f"/usr/bin/python{version}"),
    ):
        command = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", str(path), "-c", "import ssl"]
        try:
            if subprocess.run(command, capture_output=True).returncode == 0:
                return path
        except OSError:
            continue
    pytest.skip(f"no Python {version} that another user may run")


def make_environment(folder: Path, python: Path) -> Path:
    """The installed packages but the heavy ones, and Flower's commands, where anybody may read."""
    packages = Path(pytest.__file__).parents[1]

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(
        packages,
        folder / "packages",
        copy_function=link,
        symlinks=True,
        ignore=lambda place, names: (
            NOT_THE_COURIER_S & set(names) if Path(place) == packages else {"__pycache__"}
        ),
    )
    own = folder / "packages" / "fedistill"
    if not own.exists():
        shutil.copytree(Path(fedistill.__file__).parent, own)
    (folder / "bin").mkdir()
    for script in SCRIPTS.glob("fl*w*r-*"):
        text = script.read_text().split("\n", 1)[1]
        copy = folder / "bin" / script.name
        copy.write_text(f"#!{python}\n{text}")
        copy.chmod(0o755)
    for site in SITES:
        (folder / site).mkdir()
        os.chown(folder / site, NOBODY, NOBODY)
    return folder


@pytest.fixture
def apart(flower: Flower) -> Iterator[Apart]:
    readable_python()
    federation = Apart(flower)
    for site in federation.sites.values():
        federation.until(site.socket.exists, f"the agent of {site.name}")
    yield federation
    for process in (*federation.agents.values(), *federation.others):
        process.terminate()
    for process in (*federation.agents.values(), *federation.others):
        process.wait(timeout=60)
    federation.spy.__exit__()


def test_another_user_s_courier_finishes_a_run_and_code_of_a_run_steals_nothing(
    apart: Apart,
) -> None:
    twins = {name: twin_of(site) for name, site in apart.sites.items()}
    apart.start_flower({name: site.socket for name, site in apart.sites.items()})

    result = apart.run()
    folder = apart.folder / "run"
    assert (folder / "summary.json").is_file(), f"{result.stdout}\n{apart.logs()}"
    assert tuple(read_summary(folder / "summary.json").privacy.sites) == SITES
    assert [site.charges() for site in apart.sites.values()] == [1, 1, 1]

    # Between SuperNodes and SuperLink, without TLS.
    config = apart.config
    for name, site in apart.sites.items():
        identity = twins[name].identity.public_key().public_bytes_raw()
        assert apart.spy.saw(identity), "the spy is blind"
        secrets = rows_and_key(site, twins[name]) + encodings(unnoised_codes(twins[name], config))
        assert not [secret[:24] for secret in secrets if apart.spy.saw(secret)]

    loot = steal(apart)
    assert len(loot) == len(SITES), apart.logs()
    for got in loot:
        for name in SITES:
            for file in ("rows.csv", "ledger.db", "identity.key", "policy.toml"):
                assert got[str(apart.sites[name].folder / file)] == "PermissionError"
        assert got["owner socket"] == "PermissionError"
        # Labels by themselves, more epsilon, another mechanism: the policy says no.
        assert {got[name] for name in ("alone", "dear", "other")} == {"policy "}
        assert got["malformed"] == "no-answer "
    assert [site.charges() for site in apart.sites.values()] == [1, 1, 1]


def steal(apart: Apart) -> list[dict[str, str]]:
    """What a ClientApp of its own brings home from every site."""
    from dataclasses import asdict

    from fedistill.federation.deployment import open_deployment
    from fedistill.federation.simulation import questions_of

    app = apart.folder / "thief"
    (app / "thief").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "thief" / "__init__.py").write_text("")
    (app / "thief" / "client.py").write_text(THIEF)
    (app / "thief" / "fence.py").write_text(FENCE)
    question = asdict(questions_of(apart.config, open_deployment(apart.config))["bank_a"])
    asked = [
        ("alone", question),
        ("dear", question | {"epsilon": 99.0}),
        ("other", question | {"mechanism": "votes"}),
        ("malformed", {"epsilon": 1.0}),
    ]
    files = ("rows.csv", "ledger.db", "identity.key", "policy.toml")
    wanted = {
        "paths": [str(site.folder / file) for site in apart.sites.values() for file in files],
        "owner": str(apart.sites["bank_a"].folder / "owner.sock"),
        "questions": json.dumps(asked),
    }
    (apart.folder / "wanted.json").write_text(json.dumps(wanted))
    loot = apart.folder / "loot.json"
    places = f'wanted="{apart.folder / "wanted.json"}" loot="{loot}"'
    result = apart.flower.command("flwr", "run", app, "own", "--stream", "--run-config", places)
    assert loot.is_file(), f"{result.stdout}\n{result.stderr}\n{apart.logs()}"
    return json.loads(loot.read_text())
