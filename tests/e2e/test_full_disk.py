"""A real file system that fills up under the run, and is mended: nothing is lost or overspent."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import SITES, Flower
from tests.e2e.ledgers import account

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence_and_loses_nothing(
    flower: Flower, quick: str, small_disk: Path
) -> None:
    run = small_disk / "run"
    config = f'{quick} output-dir="{run}"'
    full = flower.simulate(config)
    assert full.returncode == 1
    assert "No space left" in full.stderr
    assert "make room" in full.stderr
    assert len(full.stderr.strip().splitlines()) == 1
    before = {site: account(run / f"{site}.ledger.db") for site in SITES}
    assert all(len(site.releases) <= site.charges for site in before.values())

    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    mended = flower.simulate(config)
    assert mended.returncode == 0, mended.stderr
    assert (run / "summary.json").is_file()
    for site, paid in before.items():
        after = account(run / f"{site}.ledger.db")
        if paid.releases:
            assert after == paid
        verified = flower.command("fedistill", "ledger", "verify", run / f"{site}.ledger.db")
        assert verified.returncode == 0
