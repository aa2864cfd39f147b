import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.errors import ProvisionError
from fedistill.privacy.ledger_key import SiteKey
from fedistill.provision.authority import new_key
from fedistill.provision.coordinator import read_request, revoke, sign
from fedistill.provision.project import Workshop
from fedistill.provision.registry import Registry
from fedistill.provision.request import make_request, parse_request, ssh_key
from fedistill.provision.site_folder import SiteFolder, init_site
from tests.provision.conftest import NOW, Federation

IDENTITY = SiteKey(Ed25519PrivateKey.generate())
SUPERNODE = new_key()
REQUEST = make_request("bank_a", IDENTITY, SUPERNODE, now=NOW)


def changed(**fields: str) -> bytes:
    return json.dumps(json.loads(REQUEST) | fields).encode()


def test_a_request_says_what_the_site_made() -> None:
    request = parse_request(REQUEST)
    assert (request.site, request.identity, request.made) == ("bank_a", IDENTITY.public, NOW)
    assert request.supernode == ssh_key(SUPERNODE.public_key())
    assert b"PRIVATE" not in REQUEST


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_bit_of_a_request_can_be_flipped_in_secret(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(REQUEST) - 1))
    flipped = bytearray(REQUEST)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        request = parse_request(bytes(flipped))
    except ProvisionError:
        return
    assert request == parse_request(REQUEST)  # such as another white space


@given(st.binary(max_size=200))
def test_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(ProvisionError):
        parse_request(content)


@pytest.mark.parametrize(
    "length",
    [0, 1, len(REQUEST) // 2, len(REQUEST) - 3],
    ids=["nothing", "a byte", "half", "nearly all"],
)
def test_a_cut_request_is_refused(length: int) -> None:
    with pytest.raises(ProvisionError):
        parse_request(REQUEST[:length])


def test_keys_of_others_cannot_be_claimed() -> None:
    theirs = parse_request(make_request("bank_b", IDENTITY, new_key(), now=NOW))
    with pytest.raises(ProvisionError, match="signed_by_identity"):
        parse_request(changed(supernode=theirs.supernode))
    mine = SiteKey(Ed25519PrivateKey.generate())
    stolen = json.loads(make_request("bank_a", mine, SUPERNODE, now=NOW))
    stolen["signed_by_supernode"] = json.loads(REQUEST)["signed_by_supernode"]
    with pytest.raises(ProvisionError, match="signed_by_supernode"):
        parse_request(json.dumps(stolen).encode())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"site": "../../etc"}, "site='../../etc'"),
        ({"format": "fedistill site request 2"}, "format="),
        ({"identity": "00"}, "identity='00'"),
        ({"made": "2026-03-01T12:00:00"}, "made="),
        ({"more": "x"}, "more is unknown"),
        ({"signed_by_supernode": "00" * 300}, "signed_by_supernode="),
        (
            {"supernode": ssh_key(ec.generate_private_key(ec.SECP256R1()).public_key())},
            "supernode=",
        ),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ProvisionError) as error:
        parse_request(changed(**fields))
    assert said in str(error.value)


def test_a_large_file_is_not_read(tmp_path) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(REQUEST + b" " * (1 << 15))
    with pytest.raises(ProvisionError, match="at most 16,384 bytes"):
        read_request(path)


def test_a_site_that_the_project_does_not_name_is_not_signed(
    federation: Federation, tmp_path
) -> None:
    folder = SiteFolder(tmp_path / "stranger")
    init_site(folder, "stranger", now=NOW)
    with pytest.raises(ProvisionError, match="site='stranger' must be one of the project's sites"):
        sign(federation.workshop, read_request(folder.request), now=NOW)


def test_one_site_cannot_be_signed_as_another(federation: Federation) -> None:
    folder = federation.folders["bank_a"]
    init_site(folder, "bank_b", now=NOW)
    with pytest.raises(ProvisionError, match="these are bank_a's"):
        sign(federation.workshop, read_request(folder.request), now=NOW, replace=True)


def test_other_keys_need_to_be_asked_for(federation: Federation, tmp_path) -> None:
    folder = SiteFolder(tmp_path / "again")
    init_site(folder, "bank_a", now=NOW)
    request = read_request(folder.request)
    with pytest.raises(ProvisionError, match="signed with other keys on 2026-03-01"):
        sign(federation.workshop, request, now=NOW)
    made = sign(federation.workshop, request, now=NOW, replace=True)
    assert made.registry.sites["bank_a"].fingerprint == request.fingerprint


def test_revoked_keys_are_not_signed_again(federation: Federation) -> None:
    workshop, folder = federation.workshop, federation.folders["bank_c"]
    revoke(workshop, "bank_c", now=NOW)
    with pytest.raises(ProvisionError, match=r"revoked on 2026-03-01.*--new-keys"):
        sign(workshop, read_request(folder.request), now=NOW, replace=True)
    init_site(folder, "bank_c", now=NOW, new_keys=True)
    made = sign(workshop, read_request(folder.request), now=NOW, replace=True)
    assert made.registry.sites["bank_c"].is_active(NOW)
    assert set(made.kits) == {"bank_a", "bank_b", "bank_c"}


def test_revoking_twice_or_a_stranger_is_refused(federation: Federation) -> None:
    made = revoke(federation.workshop, "bank_c", now=NOW)
    assert set(made.kits) == {"bank_a", "bank_b"}
    assert not federation.kit("bank_c").exists()
    with pytest.raises(ProvisionError, match="was revoked on 2026-03-01 already"):
        revoke(federation.workshop, "bank_c", now=NOW)
    with pytest.raises(ProvisionError, match=r"must be a site that was signed \(bank_a, bank_b"):
        revoke(federation.workshop, "bank_d", now=NOW)


def test_a_registration_ends(federation: Federation) -> None:
    registry = Registry.load(federation.workshop.registry)
    assert len(registry.active(NOW + timedelta(days=99))) == 3
    assert registry.active(NOW + timedelta(days=100)) == ()


def test_new_keys_keep_the_identity_and_the_old_key(workshop: Workshop, tmp_path) -> None:
    folder = SiteFolder(tmp_path / "bank_a")
    first = init_site(folder, "bank_a", now=NOW)
    old = folder.supernode.read_bytes()
    assert init_site(folder, "bank_a", now=NOW).public == first.public
    assert folder.supernode.read_bytes() == old
    assert init_site(folder, "bank_a", now=NOW, new_keys=True).public == first.public
    assert folder.supernode.read_bytes() != old
    kept = list(folder.path.glob("supernode.2*.key"))
    assert [path.read_bytes() for path in kept] == [old]
