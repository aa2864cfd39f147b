"""The agent needs no network: it answers where its unit forbids every socket but Unix's."""

import platform
import signal
import subprocess
import sys

import pytest

from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient
from tests.cli.conftest import COMMAND
from tests.sandboxed import SOCKET_CALL

SANDBOX = [sys.executable, "-m", "tests.sandboxed"]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in SOCKET_CALL,
    reason="seccomp filters are Linux's, and numbers of system calls differ by machine",
)


@pytest.mark.parametrize(("family", "works"), [("AF_UNIX", True), ("AF_INET", False)])
def test_the_sandbox_forbids_the_network_alone(family, works):
    code = f"import socket; socket.socket(socket.{family})"
    done = subprocess.run([*SANDBOX, sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode == 0) == works
    assert ("Address family not supported" in done.stderr) != works


def test_an_agent_without_any_network_answers_on_its_socket(site):
    command = [*SANDBOX, COMMAND, "site", "start", "--config", site.config]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        try:
            with SiteClient(site.socket, patience=60) as client:
                assert client.hello()[0] == "bank_a"
                question = agent_pb2.Question(site="bank_a", run="1", question="{}")
                assert client.ask("Labels", question)[0] == "no-answer"
            with SiteClient(site.folder / "owner.sock", patience=60) as owner:
                assert owner.status().refusals == 1
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.communicate(timeout=60)
    assert agent.returncode == 0
