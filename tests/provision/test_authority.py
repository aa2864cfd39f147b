import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fedistill.errors import ProvisionError
from fedistill.privacy.countersign import SERVER_KEY
from fedistill.provision.authority import (
    check_issued_by,
    days_left,
    fingerprint_of,
    is_kit_signature,
    make_authority,
    make_server_certificate,
    new_key,
    parse_certificate,
    parse_private_key,
)
from fedistill.provision.coordinator import init, load_authority, renew
from fedistill.provision.files import mode_of
from fedistill.provision.project import Workshop
from tests.provision.conftest import NOW, PROJECT, make_workshop


def load(path: Path) -> x509.Certificate:
    return parse_certificate(path.read_bytes(), path.name)


def test_openssl_accepts_the_chain_for_each_host(workshop: Workshop) -> None:
    init(workshop, now=NOW)
    for host in ("-verify_hostname fl.example.org", "-verify_ip 192.0.2.7", "-verify_ip ::1"):
        line = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *host.split()]
        line += ["-attime", str(int(NOW.timestamp())), "-CAfile", str(workshop.ca)]
        done = subprocess.run([*line, str(workshop.server_certificate)], check=False)
        assert done.returncode == 0, host
    wrong = [*line[:5], "-verify_hostname", "evil.example.org", *line[7:]]
    done = subprocess.run([*wrong, str(workshop.server_certificate)], check=False)
    assert done.returncode != 0


def test_private_files_are_their_owners_alone(workshop: Workshop) -> None:
    init(workshop, now=NOW)
    signs = workshop.countersign / SERVER_KEY
    for path in (workshop.project_key, workshop.server_key, workshop.registry, signs):
        assert mode_of(path) == 0o600
    made = {path for path in workshop.folder.rglob("*") if path.is_file()}
    private = {path for path in made if b"PRIVATE" in path.read_bytes()}
    assert private == {workshop.project_key, workshop.server_key, signs}


def test_init_overwrites_nothing(workshop: Workshop) -> None:
    init(workshop, now=NOW)
    before = {path: path.read_bytes() for path in workshop.folder.rglob("*") if path.is_file()}
    with pytest.raises(ProvisionError, match=r"project\.key is there already.*provision renew"):
        init(workshop, now=NOW)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    "name", ["ca.crt", "server.key", "server.crt", "registry.json", "countersign/server.pub"]
)
def test_init_leaves_alone_whatever_is_there(workshop: Workshop, name: str) -> None:
    (workshop.folder / name).parent.mkdir(exist_ok=True)
    (workshop.folder / name).write_text("mine")
    with pytest.raises(ProvisionError, match=name):
        init(workshop, now=NOW)
    assert not workshop.project_key.exists()
    assert (workshop.folder / name).read_text() == "mine"


def test_a_renewal_keeps_the_fingerprint_and_the_old_trust(workshop: Workshop) -> None:
    made = init(workshop, now=NOW)
    old = load(workshop.ca)
    later = NOW + timedelta(days=90)
    assert renew(workshop, now=later).fingerprint == made.fingerprint
    server = load(workshop.server_certificate)
    assert days_left(server, later) == 100
    check_issued_by(server, old, "server.crt")  # sites that have not joined the new kit yet


def test_another_authority_of_the_same_name_is_not_trusted() -> None:
    ours, theirs = (make_authority(new_key(), name="banks", now=NOW, days=9) for _ in range(2))
    certificate = make_server_certificate(
        theirs, new_key().public_key(), hosts=("a.example",), now=NOW, days=9
    )
    with pytest.raises(ProvisionError, match="not signed by the project"):
        check_issued_by(certificate, ours.certificate, "server.crt")
    assert fingerprint_of(ours.certificate) != fingerprint_of(theirs.certificate)
    signature = theirs.sign_kit(b"text")
    assert is_kit_signature(theirs.certificate, b"text", signature)
    assert not is_kit_signature(ours.certificate, b"text", signature)
    assert not is_kit_signature(theirs.certificate, b"texts", signature)


def test_a_certificate_is_no_kit_signature() -> None:
    authority = make_authority(new_key(), name="banks", now=NOW, days=9)
    certificate = authority.certificate
    signed = certificate.tbs_certificate_bytes
    assert not is_kit_signature(certificate, signed, certificate.signature)


def test_a_key_that_others_can_read_signs_nothing(workshop: Workshop) -> None:
    init(workshop, now=NOW)
    workshop.project_key.chmod(0o640)
    with pytest.raises(ProvisionError, match=r"mode 0640.*chmod 600"):
        load_authority(workshop)


def test_key_and_certificate_belong_together(workshop: Workshop, tmp_path: Path) -> None:
    init(workshop, now=NOW)
    other = make_workshop(tmp_path / "other")
    init(other, now=NOW)
    workshop.ca.write_bytes(other.ca.read_bytes())
    with pytest.raises(ProvisionError, match="must be of the key"):
        load_authority(workshop)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\x00" * 99])
def test_nonsense_is_neither_certificate_nor_key(content: bytes) -> None:
    with pytest.raises(ProvisionError, match="is no certificate in PEM"):
        parse_certificate(content, "ca.crt")
    with pytest.raises(ProvisionError, match="is no key in PEM"):
        parse_private_key(content, "key")


@pytest.mark.parametrize(
    ("line", "changed", "said"),
    [
        ('name = "banks"', 'name = "a b"', "name='a b'"),
        ('name = "banks"', "", "name is missing: add it"),
        ('"192.0.2.7"', '"not a host"', "'not a host' must be a DNS name or an IP address"),
        ('"192.0.2.7"', '"*.example.org"', "must be a DNS name or an IP address"),
        ('"bank_b"', '"Bank_A"', "names must differ by more than upper and lower case"),
        ('"bank_b"', '"../bank"', "String should match pattern"),
        ("validity-days = 100", "validity-days = 0", "validity-days=0"),
        ("validity-days = 100", "validty-days = 1", "validty-days is unknown"),
        ("validity-days = 100", "= 1", "is not a TOML file"),
    ],
)
def test_a_wrong_project_names_field_and_value(
    tmp_path: Path, line: str, changed: str, said: str
) -> None:
    assert line in PROJECT
    workshop = make_workshop(tmp_path / "wrong", PROJECT.replace(line, changed))
    with pytest.raises(ProvisionError) as error:
        init(workshop, now=NOW)
    assert said in str(error.value)
    assert not workshop.project_key.exists()
