"""The committed modules are those that the tools make of `agent.proto`."""

import shutil
import subprocess
import sys
from pathlib import Path

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
