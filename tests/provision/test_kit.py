import io
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedistill.errors import ProvisionError
from fedistill.provision.authority import fingerprint_of, make_authority, new_key
from fedistill.provision.coordinator import init, load_authority, read_request, renew, revoke, sign
from fedistill.provision.fingerprints import grouped
from fedistill.provision.kit import (
    CA,
    LARGEST_MEMBER,
    MANIFEST,
    ROSTER,
    SERVER,
    SIGNATURE,
    Server,
    make_kit,
    read_kit,
)
from fedistill.provision.request import SiteRecord
from fedistill.provision.site_folder import init_site, join, load_membership, load_pins, pin
from tests.provision.conftest import NOW, Federation, make_workshop


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return out.getvalue()


def refused(federation: Federation, content: bytes, said: str) -> None:
    """`site join` refuses it, and the site's folder stays as it was."""
    folder = federation.folders["bank_a"]
    before = {path: path.read_bytes() for path in folder.path.rglob("*")}
    archive = federation.workshop.folder / "changed.zip"
    archive.write_bytes(content)
    with pytest.raises(ProvisionError) as error:
        join(folder, archive, fingerprint=federation.made.fingerprint, now=NOW)
    assert said in str(error.value)
    assert before == {path: path.read_bytes() for path in folder.path.rglob("*")}


def test_a_kit_brings_server_roster_and_trust(federation: Federation) -> None:
    folder = federation.folders["bank_a"]
    typed = grouped(federation.made.fingerprint).upper().replace("-", " ")
    joined = join(folder, federation.kit("bank_a"), fingerprint=typed, now=NOW)
    assert joined.membership == load_membership(folder)
    assert joined.membership.address == "fl.example.org:9092"
    assert folder.ca.read_bytes() == federation.workshop.ca.read_bytes()
    assert [each.site for each in joined.unpinned] == ["bank_b", "bank_c"]
    assert load_pins(folder) == {}


def test_the_first_kit_needs_the_projects_fingerprint(federation: Federation) -> None:
    folder, kit = federation.folders["bank_a"], federation.kit("bank_a")
    shown = grouped(federation.made.fingerprint)
    with pytest.raises(ProvisionError, match=f"--fingerprint is missing.*{shown}"):
        join(folder, kit, fingerprint=None, now=NOW)
    with pytest.raises(ProvisionError, match="must be the fingerprint of the project"):
        join(folder, kit, fingerprint="0" * 64, now=NOW)
    for part in (shown[:-1], shown[:19], "", "zz" * 32):
        with pytest.raises(ProvisionError, match="must be 64 hex digits"):
            join(folder, kit, fingerprint=part, now=NOW)
    assert not folder.membership.exists()


def test_a_kit_is_for_the_keys_that_asked(federation: Federation) -> None:
    refused(federation, federation.kit("bank_b").read_bytes(), "the keys in")
    init_site(federation.folders["bank_a"], "bank_a", now=NOW, new_keys=True)
    refused(federation, federation.kit("bank_a").read_bytes(), "the keys in")


@given(st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_bit_of_a_kit_can_be_flipped_in_secret(
    federation: Federation, data: st.DataObject
) -> None:
    content = bytearray(federation.kit("bank_a").read_bytes())
    read = read_kit(bytes(content), fingerprint=federation.made.fingerprint, now=NOW)
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = read_kit(bytes(content), fingerprint=federation.made.fingerprint, now=NOW)
    except ProvisionError:
        return
    assert found == read  # such as a date in the archive's directory


@given(st.binary(max_size=300))
def test_nonsense_is_no_kit(content: bytes) -> None:
    with pytest.raises(ProvisionError, match="no zip archive that fedistill wrote"):
        read_kit(content, fingerprint="0" * 64, now=NOW)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_kit_is_refused(federation: Federation, share: float) -> None:
    content = federation.kit("bank_a").read_bytes()
    refused(federation, content[: int(share * len(content))], "no zip archive")


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda content: {key: each for key, each in content.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(SIGNATURE), "members must be"),
        (without(ROSTER), "members must be"),
        (lambda m: m | {"../../.bashrc": b"x"}, "members must be"),
        (lambda m: m | {"/etc/cron.d/x": b"x"}, "members must be"),
        (lambda m: without(ROSTER)(m) | {"../roster.json": m[ROSTER]}, "members must be"),
        (lambda m: m | {SERVER: m[ROSTER], ROSTER: m[SERVER]}, "is not the file that"),
        (lambda m: m | {SERVER: m[SERVER].replace(b"fl.", b"ev.")}, "server.json is not the file"),
        (lambda m: m | {MANIFEST: m[MANIFEST] + b" "}, "is no signature of manifest.json"),
        (lambda m: m | {SIGNATURE: b""}, "is no signature of manifest.json"),
        (lambda m: m | {CA: b"nothing"}, "is no certificate in PEM"),
        (lambda m: m | {ROSTER: b" " * (LARGEST_MEMBER + 1)}, "must have at most 1,048,576 bytes"),
    ],
)
def test_changed_members_are_refused(
    federation: Federation, change: Callable[[dict[str, bytes]], dict[str, bytes]], said: str
) -> None:
    refused(federation, pack(change(members(federation.kit("bank_a")))), said)


def test_a_member_that_is_there_twice_is_refused(federation: Federation) -> None:
    out = io.BytesIO(federation.kit("bank_a").read_bytes())
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(ROSTER, b"[]")
    refused(federation, out.getvalue(), "each once")


def test_a_huge_archive_is_not_read(federation: Federation) -> None:
    refused(federation, b"\0" * (7 << 20), "must have at most")


def test_members_of_two_kits_do_not_mix(federation: Federation) -> None:
    older = members(federation.kit("bank_a"))
    revoke(federation.workshop, "bank_c", now=NOW)
    newer = members(federation.kit("bank_a"))
    assert older[ROSTER] != newer[ROSTER]
    refused(federation, pack(newer | {ROSTER: older[ROSTER]}), "roster.json is not the file")


def test_a_foreign_project_of_the_same_name_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    theirs = make_workshop(tmp_path / "theirs")
    init(theirs, now=NOW)
    sign(theirs, read_request(federation.folders["bank_a"].request), now=NOW)
    content = theirs.kit("bank_a").read_bytes()
    refused(federation, content, "must be the fingerprint of the project of this kit")
    ours = members(federation.kit("bank_a"))
    mixed = pack(members(theirs.kit("bank_a")) | {CA: ours[CA]})
    refused(federation, mixed, "is no signature of manifest.json")
    join(
        federation.folders["bank_a"],
        federation.kit("bank_a"),
        fingerprint=federation.made.fingerprint,
        now=NOW,
    )
    with pytest.raises(ProvisionError, match="must be the fingerprint of banks, joined before"):
        join(federation.folders["bank_a"], theirs.kit("bank_a"), fingerprint=None, now=NOW)


def test_the_projects_own_signature_does_not_excuse_nonsense(federation: Federation) -> None:
    authority = load_authority(federation.workshop)
    content = members(federation.kit("bank_a"))
    manifest = json.loads(content[MANIFEST]) | {"format": "fedistill startup kit 2"}
    signed = json.dumps(manifest).encode()
    content |= {MANIFEST: signed, SIGNATURE: authority.sign_kit(signed)}
    refused(federation, pack(content), "manifest.json: format=")


def test_a_site_that_is_not_in_its_own_roster_is_refused(federation: Federation) -> None:
    registry = federation.made.registry
    kit = make_kit(
        load_authority(federation.workshop),
        project="banks",
        serial=9,
        record=registry.sites["bank_a"],
        server=Server(host="fl.example.org", port=9092, server_key="ab" * 32),
        roster=(registry.sites["bank_b"],),
        now=NOW,
        expires=NOW + timedelta(days=1),
    )
    refused(federation, kit, "the keys in")


def test_expired_kits_are_refused_and_renewed_ones_taken(federation: Federation) -> None:
    folder, kit = federation.folders["bank_a"], federation.kit("bank_a")
    join(folder, kit, fingerprint=federation.made.fingerprint, now=NOW)
    late = NOW + timedelta(days=101)
    with pytest.raises(ProvisionError, match=r"expired on 2026-06-09: ask the coordinator"):
        join(folder, kit, fingerprint=None, now=late)
    renew(federation.workshop, now=late)
    joined = join(folder, kit, fingerprint=None, now=late)
    assert joined.membership.expires == late + timedelta(days=100)


def test_an_expired_authority_is_refused_whatever_the_manifest_says() -> None:
    authority = make_authority(new_key(), name="banks", now=NOW - timedelta(days=9), days=8)
    record = SiteRecord(site="a", identity="0" * 64, supernode="ecdsa-sha2-nistp384 AAAA")
    kit = make_kit(
        authority,
        project="banks",
        serial=1,
        record=record,
        server=Server(host="a", port=1, server_key="ab" * 32),
        roster=(record,),
        now=NOW,
        expires=NOW + timedelta(days=9),
    )
    with pytest.raises(ProvisionError, match="expired"):
        read_kit(kit, fingerprint=fingerprint_of(authority.certificate), now=NOW)


def test_an_older_kit_does_not_bring_back_who_was_revoked(federation: Federation) -> None:
    folder, kit = federation.folders["bank_a"], federation.kit("bank_a")
    old = federation.workshop.folder / "old.zip"
    old.write_bytes(kit.read_bytes())
    revoke(federation.workshop, "bank_c", now=NOW)
    join(folder, kit, fingerprint=federation.made.fingerprint, now=NOW)
    with pytest.raises(ProvisionError, match="serial=3 must be at least 4"):
        join(folder, old, fingerprint=None, now=NOW)
    assert [each.site for each in load_membership(folder).peers] == ["bank_b"]


def test_pins_are_only_what_somebody_compared(federation: Federation) -> None:
    folder, sites = federation.folders["bank_a"], federation.made.registry.sites
    join(folder, federation.kit("bank_a"), fingerprint=federation.made.fingerprint, now=NOW)
    with pytest.raises(ProvisionError, match="FINGERPRINT="):
        pin(folder, "bank_b", sites["bank_c"].fingerprint)
    with pytest.raises(ProvisionError, match=r"SITE='bank_a' must be another site"):
        pin(folder, "bank_a", sites["bank_a"].fingerprint)
    pin(folder, "bank_b", grouped(sites["bank_b"].fingerprint))
    pin(folder, "bank_c", sites["bank_c"].fingerprint)
    assert load_pins(folder) == {site: sites[site].fingerprint for site in ("bank_b", "bank_c")}


def test_a_new_kit_drops_pins_of_who_left_or_changed_and_adds_none(
    federation: Federation, tmp_path: Path
) -> None:
    folder, sites = federation.folders["bank_a"], federation.made.registry.sites
    join(folder, federation.kit("bank_a"), fingerprint=federation.made.fingerprint, now=NOW)
    for site in ("bank_b", "bank_c"):
        pin(folder, site, sites[site].fingerprint)
    federation.folders["bank_b"].identity.unlink()
    init_site(federation.folders["bank_b"], "bank_b", now=NOW)
    request = read_request(federation.folders["bank_b"].request)
    sign(federation.workshop, request, now=NOW, replace=True)
    revoke(federation.workshop, "bank_c", now=NOW)
    joined = join(folder, federation.kit("bank_a"), fingerprint=None, now=NOW)
    assert joined.dropped == ("bank_b", "bank_c")
    assert [each.site for each in joined.unpinned] == ["bank_b"]
    assert load_pins(folder) == {}
