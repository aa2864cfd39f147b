"""`python -m benchmarks.ledger`: what it measures, and that a charge makes one fsync."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.ledger import Speed, measure
from fedistill.privacy.ledger import Ledger
from tests.privacy.conftest import PRELUDE


def test_it_prints_charges_fsyncs_and_their_ratio(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "benchmarks.ledger", "--directory", tmp_path, "--charges", "20"]
    result = subprocess.run(script, capture_output=True, text=True, check=True)
    assert re.search(r"^charges +\d", result.stdout, re.M)
    assert re.search(r"^bare fsyncs +\d", result.stdout, re.M)
    assert re.search(
        r"^ratio \d+\.\d\d; the claim of at least 0.5 (holds|does not)", result.stdout, re.M
    )


def test_the_ratio_is_charges_against_single_fsyncs() -> None:
    assert Speed(charges=50.0, fsyncs=100.0).ratio == 0.5


def test_a_measurement_leaves_nothing_behind(tmp_path: Path) -> None:
    speed = measure(tmp_path, charges=20)
    assert min(speed.charges, speed.fsyncs) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="counting fsyncs needs strace")
def test_a_charge_of_an_open_ledger_makes_one_fsync(
    open_ledger: Callable[..., Ledger], path: Path, tmp_path: Path
) -> None:
    open_ledger().close()
    counts = []
    for charges in (1, 3):
        script = (
            PRELUDE
            + f"""
with open_ledger() as ledger:
    for number in range({charges}):
        charge(ledger, str(number), epsilon=0.01)
"""
        )
        trace = tmp_path / "trace"
        traced = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", trace]
        subprocess.run([*traced, sys.executable, "-c", script, path], check=True)
        counts.append(trace.read_text().count("sync("))
    assert counts[1] - counts[0] == 2
