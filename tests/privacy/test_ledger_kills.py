"""kill -9 at every step of the ledger: what left was charged, and was charged once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = {
    *("create_key", "put_file", "create", "begin_log", "transaction", "_insert", "charge"),
    *("write_anchor", "add_to_anchor", "sync_anchor", "store", "cached", "read_contents"),
    *("settle_anchor", "end_log", "close"),
}


def kills(folder: Path, number: int, *broken: str) -> "subprocess.CompletedProcess[str]":
    script = [sys.executable, "-m", "tests.privacy.kills", folder, str(number), *broken]
    return subprocess.run(script, capture_output=True, text=True, timeout=3600)


@pytest.mark.parametrize("number", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_kill_9_leaves_no_release_without_its_charge_and_no_release_charged_twice(
    tmp_path: Path, number: int
) -> None:
    """Half at every line of the ledger's code, half at random instants of two processes at once."""
    result = kills(tmp_path, number)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert sum(found["died"].values()) == number // 2
    if number == 1000:
        assert found["died"].keys() >= STEPS
        assert found["left"].keys() == {"a journal", "a wal", "a paid answer"}


def test_the_audit_notices_a_site_that_sends_before_it_charges(tmp_path: Path) -> None:
    result = kills(tmp_path, 20, "broken")
    assert result.returncode == 1
    assert "a release left without its charge" in result.stderr
