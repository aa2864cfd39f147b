from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedistill.provision.coordinator import Made, init, read_request, sign
from fedistill.provision.project import Workshop
from fedistill.provision.site_folder import SiteFolder, init_site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SITES = ("bank_a", "bank_b", "bank_c")
PROJECT = """
name = "banks"
hosts = ["fl.example.org", "192.0.2.7", "::1"]
sites = ["bank_a", "bank_b", "bank_c"]
validity-days = 100
"""


@dataclass(frozen=True)
class Federation:
    """A project of three sites, all signed at `NOW`."""

    workshop: Workshop
    folders: dict[str, SiteFolder]
    made: Made

    def kit(self, site: str) -> Path:
        return self.workshop.kit(site)


def make_workshop(folder: Path, text: str = PROJECT) -> Workshop:
    folder.mkdir(exist_ok=True)
    (folder / "project.toml").write_text(text)
    return Workshop(folder / "project.toml")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path / "coordinator")


@pytest.fixture
def federation(tmp_path: Path, workshop: Workshop) -> Federation:
    made = init(workshop, now=NOW)
    folders = {site: SiteFolder(tmp_path / site) for site in SITES}
    for site, folder in folders.items():
        init_site(folder, site, now=NOW)
        made = sign(workshop, read_request(folder.request), now=NOW)
    return Federation(workshop, folders, made)
