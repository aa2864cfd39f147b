"""Pins and the policy's `[peers]` are joined by one rule."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from fedistill.errors import ProvisionError
from fedistill.privacy.ledger_key import load_key
from fedistill.provision.peers import peers_of
from fedistill.provision.preflight import Status, local_checks
from fedistill.provision.site_folder import SiteFolder, join, pin
from fedistill.site.policy import Policy
from tests.provision.conftest import NOW, Federation

POLICY = Policy.model_validate(
    {
        "site": "bank_a",
        "population": "customers",
        "rows-at-least": 5000,
        "total-epsilon": 4.0,
        "epsilon-per-release": 1.0,
        "delta": 1e-5,
        "mechanisms": ["dp-probe"],
        "proxy-sha256": [],
    },
    strict=False,
)
STRANGER = "ab" * 32


@dataclasses.dataclass
class Site:
    folder: SiteFolder
    keys: dict[str, str]

    def peers(self, **named: str) -> dict[str, str]:
        return peers_of(self.folder, POLICY.model_copy(update={"peers": named}))


@pytest.fixture
def joined(federation: Federation) -> Site:
    """bank_a, which joined and pinned nobody yet."""
    folder = federation.folders["bank_a"]
    join(folder, federation.kit("bank_a"), fingerprint=federation.made.fingerprint, now=NOW)
    keys = {site: load_key(each.identity).public for site, each in federation.folders.items()}
    return Site(folder, keys)


def pin_both(joined: Site, federation: Federation) -> None:
    for site in ("bank_b", "bank_c"):
        pin(joined.folder, site, federation.made.registry.sites[site].fingerprint)


def test_pinned_sites_are_peers_by_the_roster_s_keys_and_others_are_not(joined, federation) -> None:
    assert joined.peers() == {}
    pin(joined.folder, "bank_b", federation.made.registry.sites["bank_b"].fingerprint)
    assert joined.peers() == {"bank_b": joined.keys["bank_b"]}


def test_sites_that_the_policy_names_are_peers_beside_the_pinned_ones(joined, federation) -> None:
    pin_both(joined, federation)
    same = {"bank_b": joined.keys["bank_b"]}
    both = {site: joined.keys[site] for site in ("bank_b", "bank_c")}
    assert joined.peers(**same) == both
    assert joined.peers(elsewhere=STRANGER) == {**both, "elsewhere": STRANGER}


def test_a_policy_that_contradicts_a_pin_is_refused(joined, federation) -> None:
    pin_both(joined, federation)
    with pytest.raises(ProvisionError, match=rf"peers\.bank_b={STRANGER} must be .*remove it"):
        joined.peers(bank_b=STRANGER)


def test_a_pin_that_contradicts_the_roster_is_refused(joined) -> None:
    for site in ("bank_b", "nobody"):
        joined.folder.pins.write_text(f'[peers]\n{site} = "{STRANGER}"\n')
        with pytest.raises(ProvisionError, match=rf"pins: {site}=.*newest kit"):
            joined.peers()


def test_the_policy_of_another_site_is_refused(joined) -> None:
    with pytest.raises(ProvisionError, match="site='bank_b' must be 'bank_a'"):
        peers_of(joined.folder, POLICY.model_copy(update={"site": "bank_b"}))


def test_a_site_that_joined_nothing_has_the_peers_of_its_policy(tmp_path: Path) -> None:
    named = POLICY.model_copy(update={"peers": {"bank_b": STRANGER}})
    assert peers_of(SiteFolder(tmp_path), named) == {"bank_b": STRANGER}
    (tmp_path / "pins.toml").write_text(f'[peers]\nbank_b = "{STRANGER}"\n')
    with pytest.raises(ProvisionError, match="site join"):
        peers_of(SiteFolder(tmp_path), named)


def test_preflight_counts_both_and_finds_the_contradiction(joined, federation) -> None:
    def pins_line(**named: str) -> tuple[Status, str]:
        POLICY.model_copy(update={"peers": named}).save(joined.folder.policy)
        assert tomllib.loads(joined.folder.policy.read_text())["peers"] == named
        checks, _ = local_checks(joined.folder, now=NOW)
        (found,) = (each for each in checks if each.name == "pins")
        return found.status, found.found

    pin(joined.folder, "bank_b", federation.made.registry.sites["bank_b"].fingerprint)
    status, said = pins_line()
    assert (status, "bank_c" in said, "bank_b" in said) == (Status.WARNING, True, False)
    assert pins_line(bank_c=joined.keys["bank_c"])[0] is Status.OK
    assert pins_line(bank_c=STRANGER)[0] is Status.WARNING
    assert pins_line(bank_b=STRANGER)[0] is Status.ERROR
