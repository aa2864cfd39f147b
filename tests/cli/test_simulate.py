"""`fedistill simulate` with the real Flower and Ray, on an app that misbehaves."""

import os
import signal
import time

import psutil
import pytest

from fedistill.cli.guardian import MARKER, marked

pytestmark = pytest.mark.e2e

SLEEP = "time.sleep(600)"


def family_of(process):
    """The marker of the run and all its processes, once the app and Ray are up."""
    steps = iter(process.stdout.readline, "")
    assert any(line.startswith("throwaway") for line in steps), process.stderr.read()
    [guardian] = psutil.Process(process.pid).children()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        family = guardian.children(recursive=True)
        if {"raylet", "gcs_server"} <= {member.name() for member in family}:
            return guardian.environ()[MARKER], [guardian, *family]
        time.sleep(0.2)
    pytest.fail("Ray did not start")


def test_a_failed_run_exits_1_with_the_reason_in_one_sentence(fedistill, make_app, temporary):
    app = make_app(
        "tell(phase='failed', reason='1 of 3 sites\\nanswered', exit_code=1)\n"
        "raise RuntimeError('a traceback')"
    )
    result = fedistill("simulate", app)
    assert result.returncode == 1
    [log] = temporary.glob("fedistill-log-*/flower.log")
    assert result.stderr == f"fedistill: 1 of 3 sites answered (log: {log})\n"
    assert "a traceback" in log.read_text()
    assert list(temporary.glob("fedistill-*")) == [log.parent]


def test_control_c_leaves_no_process_behind(start_fedistill, make_app, temporary):
    process = start_fedistill("simulate", make_app(SLEEP))
    marker, family = family_of(process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("fedistill: interrupted by SIGINT")
    assert not [member for member in family if member.is_running()]
    assert not list(marked(marker))
    assert not list(temporary.glob("fedistill-*"))


def test_a_killed_command_leaves_no_process_behind(start_fedistill, make_app, temporary):
    process = start_fedistill("simulate", make_app(SLEEP))
    marker, family = family_of(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(member.is_running() for member in family) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [member for member in family if member.is_running()]
    assert not list(marked(marker))
    assert not list(temporary.glob("fedistill-*"))
