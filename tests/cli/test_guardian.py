"""The guardian over small commands, whose processes detach themselves as Flower's and Ray's do."""

import json
import os
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from fedistill.cli.guardian import KEEP, LOG, MARKER

DETACH = """
import subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, env={env}
)
print(child.pid, flush=True)
time.sleep({seconds})
"""


@pytest.fixture
def guard(tmp_path):
    """Start a guardian; gives it and the process that its command detached."""
    folder = tmp_path / "run"
    guardians = []

    def start(*options: str, seconds: int, env: str = "None"):
        folder.mkdir()
        command = [sys.executable, "-c", DETACH.format(env=env, seconds=seconds)]
        guardian = subprocess.Popen(
            [sys.executable, "-m", "fedistill.cli.guardian", folder, *options, *command],
            env=os.environ | {MARKER: uuid.uuid4().hex},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        guardians.append(guardian)
        deadline = time.monotonic() + 30
        while not (folder / LOG).exists() or not (folder / LOG).read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return guardian, psutil.Process(int((folder / LOG).read_text()))

    yield start
    for guardian in guardians:
        if guardian.stdin and not guardian.stdin.closed:
            guardian.communicate(timeout=30)


@pytest.mark.parametrize("env", ["None", "{}"], ids=["marked", "environment overwritten"])
def test_closing_the_pipe_ends_detached_processes_and_removes_the_folder(guard, tmp_path, env):
    guardian, detached = guard(seconds=600, env=env)
    guardian.communicate(timeout=30)
    assert not detached.is_running()
    assert not (tmp_path / "run").exists()


def test_when_the_command_ends_the_outcome_comes_after_the_last_process(guard, tmp_path):
    guardian, detached = guard(seconds=0, env="{}")
    outcome = json.loads(guardian.stdout.readline())
    assert outcome == {"status": "", "details": ""}
    assert not detached.is_running()
    assert (tmp_path / "run" / LOG).exists()
    guardian.communicate(timeout=30)
    assert not (tmp_path / "run").exists()


def test_a_terminated_guardian_cleans_up_too(guard, tmp_path):
    guardian, detached = guard(seconds=600)
    guardian.terminate()
    guardian.wait(timeout=30)
    assert not detached.is_running()
    assert not (tmp_path / "run").exists()


def test_the_folder_can_be_kept(guard, tmp_path):
    guardian, _ = guard(KEEP, seconds=600)
    guardian.communicate(timeout=30)
    assert (tmp_path / "run" / LOG).exists()
