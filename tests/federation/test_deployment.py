"""Sites behind sockets, as they are deployed: real agents, real courier, Flower's messages."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedistill.federation import courier
from fedistill.federation.local_grid import LocalGrid
from fedistill.federation.progress import Progress
from fedistill.federation.run_folder import run_folder
from fedistill.federation.up_front import prepare_deployment
from fedistill.federation.workflow import run_workflow
from fedistill.site.daemon import serving
from fedistill.site.site_config import SiteConfig
from tests.deployed import SITES, write_federation

pytestmark = pytest.mark.usefixtures("quick")


class Nodes(LocalGrid):
    """A node for each site, which knows its socket alone."""

    def __init__(self, config, sites):
        super().__init__(courier.app, config.to_flat(), num_nodes=len(sites))
        for context, site in zip(self._contexts.values(), sites.values(), strict=True):
            context.node_config = {courier.SOCKET: str(site.socket)}


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


def run(config, sites):
    return run_workflow(
        Nodes(config, sites),
        config,
        prepare_deployment(config),
        run_folder(config, "7"),
        run="7",
        progress=Progress(),
    )


@pytest.fixture
def started(folder):
    with ExitStack() as stack:

        def start(**clauses):
            sites, config = write_federation(folder, **clauses)
            for site in sites.values():
                stack.enter_context(serving(SiteConfig.load(site.config)))
            return sites, config

        yield start


def test_deployed_sites_teach_a_student_and_are_charged_once_each(started):
    sites, config = started()
    summary = run(config, sites)
    assert summary.metrics.student.auc > 0.7
    assert tuple(summary.privacy.sites) == SITES
    assert [site.charges() for site in sites.values()] == [1, 1, 1]
    assert summary.metrics.central_reference is None
    assert summary.metrics.teachers is None
    assert summary.privacy.sites["bank_a"].total_epsilon is None
    assert "its own ledger" in summary.guarantee
    assert (run_folder(config, "7").path / "student.onnx").is_file()
    assert not (run_folder(config, "7").path / "receipts.jsonl").exists()
    assert all((site.folder / "receipts.jsonl").is_file() for site in sites.values())
