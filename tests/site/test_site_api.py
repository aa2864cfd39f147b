"""Generated modules, examples and lists of keys are those of the code."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from fedistill.config import RunConfig
from fedistill.site.site_config import SiteConfig

ROOT = Path(__file__).parents[2]
FOLDER = "fedistill/site_api"


def test_the_generated_modules_are_of_the_proto_file(tmp_path):
    (tmp_path / FOLDER).mkdir(parents=True)
    shutil.copy(ROOT / FOLDER / "agent.proto", tmp_path / FOLDER)
    out = ("--python_out=.", "--pyi_out=.", "--grpc_python_out=.")
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, f"{FOLDER}/agent.proto"],
        cwd=tmp_path,
        check=True,
    )
    for name in ("agent_pb2.py", "agent_pb2.pyi", "agent_pb2_grpc.py"):
        assert (ROOT / FOLDER / name).read_text() == (tmp_path / FOLDER / name).read_text(), name


def test_the_script_says_what_this_test_does():
    script = (ROOT / "scripts" / "make_site_api").read_text()
    assert all(part in script for part in ("--python_out=.", "--pyi_out=.", "--grpc_python_out=."))


def test_the_example_states_an_agent_and_the_page_lists_every_key():
    example = SiteConfig.load(ROOT / "clients" / "agent.toml")
    assert example.socket_path == Path("/run/fedistill/agent.sock")
    assert example.ledger_path == ROOT / "clients" / "ledger.db"
    page = (ROOT / "docs" / "deployment.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = {key for row in rows for key in re.findall(r"`([a-z0-9-]+)`", row)}
    assert {field.alias for field in SiteConfig.model_fields.values()} <= listed


def test_the_coordinator_s_app_states_every_key_and_the_light_courier():
    app = tomllib.loads((ROOT / "server" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert set(app["config"]) == set(RunConfig().to_flat())
    assert app["components"]["clientapp"] == "fedistill.federation.courier:app"
    RunConfig.from_flat(app["config"])
