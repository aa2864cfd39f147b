"""The file of private rows is noticed when it changes, and changes no budget."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedistill.errors import DataError, LedgerError
from fedistill.labels import LabelQuestion
from fedistill.site import LocalAgent
from fedistill.site.registered_data import check_data, confirm_data, registered_sha256
from fedistill.site.site_config import SiteConfig, load_proxy, load_rows
from tests.deployed import Site, write_federation


@pytest.fixture
def site() -> Iterator[Site]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        sites, _ = write_federation(Path(folder), secure_aggregation="optional")
        yield sites["bank_a"]


def charge(site: Site) -> None:
    """One answer, by an agent that does not look at the registered hash."""
    config = SiteConfig.load(site.config)
    policy, proxy = site.policy(), load_proxy(config)
    rows, _ = load_rows(config, policy, proxy)
    agent = LocalAgent(
        run="1",
        policy=policy,
        rows=rows,
        proxy=proxy,
        ledger_path=config.ledger_path,
        receipts_path=config.receipts_path,
        key=config.key_path,
        new_ledger=False,
    )
    agent.labels(
        LabelQuestion(
            mechanism="dp-probe",
            epsilon=1.0,
            delta=1e-5,
            num_classes=2,
            proxy_sha256=proxy.sha256,
            server_key=policy.server_key,
        )
    )


def test_a_site_that_was_never_charged_registers_its_file_by_itself(site):
    config = SiteConfig.load(site.config)
    assert registered_sha256(config) is None
    check_data(config)
    assert registered_sha256(config) is not None
    assert config.registered_data_path.stat().st_mode & 0o777 == 0o600
    check_data(config)


def test_another_file_is_refused_until_its_owner_confirms_it_and_pays_from_the_same_budget(site):
    config = SiteConfig.load(site.config)
    check_data(config)
    charge(site)
    with config.data_path.open("a") as stream:
        stream.write(config.data_path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(DataError, match="fedistill site confirm-data"):
        check_data(config)
    confirm_data(config)
    check_data(config)
    assert site.charges() == 1


def test_a_lost_registration_of_a_charged_population_asks_its_owner(site):
    config = SiteConfig.load(site.config)
    charge(site)
    with pytest.raises(DataError, match="may not be"):
        check_data(config)


def test_the_registration_is_a_line_that_sha256sum_checks(site):
    config = SiteConfig.load(site.config)
    found = confirm_data(config)
    assert config.registered_data_path.read_text() == f"{found}  {config.data_path}\n"


def test_what_cannot_be_read_is_an_error_with_the_field(site):
    config = SiteConfig.load(site.config)
    config.registered_data_path.mkdir()
    with pytest.raises(DataError, match="registered-data-path"):
        check_data(config)
    with pytest.raises(DataError, match="registered-data-path"):
        confirm_data(config)
    config.registered_data_path.rmdir()
    config.data_path.unlink()
    with pytest.raises(DataError, match="data-path"):
        check_data(config)


def test_a_ledger_that_is_missing_registers_nothing(site):
    config = SiteConfig.load(site.config)
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(LedgerError, match="no ledger at"):
        check_data(config)
    assert registered_sha256(config) is None
