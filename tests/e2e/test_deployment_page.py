"""The page about deployment, block by block: from empty folders to a student, by real processes."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedistill.data import ProxySet
from fedistill.evaluate.summary import read_summary
from tests.deployed import write_csv
from tests.e2e.conftest import REPOSITORY, SITES
from tests.e2e.reader import Reader, blocks, reading
from tests.small import write_table

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PAGE = REPOSITORY / "docs" / "deployment.md"
AT_SITES = ("fedistill site init", "fedistill provision sign", "fedistill site join")


@pytest.fixture
def reader() -> Iterator[Reader]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="t", dir="/tmp", ignore_cleanup_errors=True) as folder,
        reading(PAGE, Path(folder)) as reader,
    ):
        yield reader


def write_rows(folder: Path) -> None:
    """The coordinator's public files and each bank's rows, as the page names them."""
    with np.load(write_table(folder / "all.npz")) as table:
        rows, labels = table["X"], table["y"]
    public, test, *parts = np.split(np.arange(len(rows)), [300, 500, 833, 1166])
    files = [folder / "public.csv", folder / "test.csv"]
    files += [folder / site / "rows.csv" for site in SITES]
    for file, part in zip(files, [public, test, *parts], strict=True):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_csv(file, rows[part], labels[part])
        file.write_text(file.read_text().replace(",default\n", ",defaulted\n", 1))


def write_sites(reader: Reader, policy: str, agent: str) -> None:
    """Each bank's policy and agent's file, as the page has them for the first."""
    proxy = reader.folder / "proxy.bin"
    sha256 = ProxySet.load(proxy).sha256
    for site in SITES:
        (reader.folder / "run" / site).mkdir(mode=0o750, parents=True)
        shutil.copy(proxy, reader.folder / site)
        for name, text in (("policy.toml", policy), ("agent.toml", agent)):
            own = reader.own(text).replace("bank_a", site).replace("0" * 64, sha256)
            own = own.replace("rows-at-least = 5000", "rows-at-least = 300")
            (reader.folder / site / name).write_text(own)


def pins_of(site: str, block: str) -> str:
    """The page pins at bank_a; the same commands at another bank."""
    if site == "bank_a":
        return block
    upper = site.upper()
    return block.replace("--dir bank_a", f"--dir {site}").replace(
        f'pin {site} "${upper}"', 'pin bank_a "$BANK_A"'
    )


def test_the_page_leads_from_empty_folders_to_a_student(reader: Reader) -> None:
    project, policy, agent = blocks(PAGE, "toml")
    (reader.folder / "project.toml").write_text(reader.own(project))
    write_rows(reader.folder)
    shutil.copytree(REPOSITORY / "server", reader.folder / "server")
    todo = iter(blocks(PAGE, "sh")[2:])  # after `fedistill dev`, which tests/e2e/test_dev.py runs

    def page(first: str) -> str:
        block = next(todo)
        assert block.startswith(first), block
        return block

    reader.follow(page("fedistill data proxy"))
    reader.follow(page("fedistill provision init"))
    for first in AT_SITES:
        block = page(first)
        for site in SITES:
            reader.follow(block.replace("bank_a", site).replace("BANK_A", site.upper()))
    block = page("fedistill site pin")
    for site in SITES:
        reader.follow(pins_of(site, block))
    reader.start(page("flower-superlink"))
    reader.start(page("fedistill provision front"))
    reader.until(lambda: reader.answers(reader.superlink_port), "SuperLink")
    reader.until(lambda: reader.answers(reader.port), "front")
    reader.follow(page("fedistill provision register"))

    write_sites(reader, policy, agent)
    for first in ("chmod 600", "fedistill site preflight"):
        block = page(first)
        for site in SITES:
            reader.follow(block.replace("bank_a", site))
    block = page("fedistill site start")
    for site in SITES:
        reader.start(block.replace("bank_a", site))
    page("flower-supernode")
    for site in SITES:
        assert reader.connects(reader.start_supernode(site))
    sockets = [reader.folder / "run" / site / "agent.sock" for site in SITES]
    reader.until(lambda: all(socket.exists() for socket in sockets), "agents")

    reader.follow(page("FLWR_HOME=$PWD/flower flwr run"))
    found = list((reader.folder / "home" / "runs").glob("*/summary.json"))
    logs = "\n".join(reader.log(service)[-2000:] for service in reader.services)
    assert len(found) == 1, logs
    summary = read_summary(found[0])
    assert tuple(summary.privacy.sites) == SITES
    assert summary.metrics.student.auc is not None
    assert summary.metrics.student.auc > 0.7
    said = page("fedistill site status")
    assert "in 1 charges" in reader.follow(said.splitlines()[0])
    assert next(todo, None) is None
