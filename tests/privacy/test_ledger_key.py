"""The site's key: made once, kept from others, and in everything that the ledger holds."""

import json
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from dp_accounting import ZCDpEvent

from fedistill.errors import LedgerError
from fedistill.privacy.events import event_from_json
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path, read_anchor
from fedistill.privacy.ledger_file import read
from fedistill.privacy.ledger_key import Signed, create_key, is_signed, key_path, load_key
from fedistill.privacy.ledger_verify import verify

Open = Callable[..., Ledger]


@pytest.mark.parametrize(
    ("ledger", "key"),
    [
        ("bank_a.ledger.db", "bank_a.key"),
        ("VA Long Beach.ledger.db", "VA Long Beach.key"),
        ("st.mary.ledger.db", "st.mary.key"),
    ],
)
def test_a_simulated_site_keeps_its_key_beside_its_ledger(ledger: str, key: str) -> None:
    assert key_path(Path("/home/site") / ledger) == Path("/home/site") / key


def test_a_key_is_made_once_and_for_its_owner_alone(open_ledger: Open, path: Path) -> None:
    open_ledger().close()
    key = key_path(path)
    first = key.read_bytes()
    assert first.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    open_ledger().close()
    create_key(key)
    assert key.read_bytes() == first


def test_header_and_anchor_name_the_public_key(ledger_of_three: Path) -> None:
    public = load_key(key_path(ledger_of_three)).public
    anchor = read_anchor(ledger_of_three)
    assert anchor is not None
    assert anchor.public_key == public
    with closing(sqlite3.connect(ledger_of_three)) as connection:
        ((header,),) = connection.execute("SELECT entry FROM header")
    assert json.loads(header)["public_key"] == public


def test_anyone_can_check_every_signature_with_sqlite_and_ed25519_alone(
    ledger_of_three: Path,
) -> None:
    anchor = json.loads(anchor_path(ledger_of_three).read_text())
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(anchor["public_key"]))
    text = f"fedistill ledger anchor\n{anchor['count']}\n{anchor['head']}"
    key.verify(bytes.fromhex(anchor["signature"]), text.encode())
    with closing(sqlite3.connect(ledger_of_three)) as connection:
        rows = connection.execute("SELECT hash, signature FROM charges").fetchall()
    assert len(rows) == 3
    for digest, signature in rows:
        key.verify(bytes.fromhex(signature), f"fedistill ledger entry\n{digest}".encode())


def test_the_column_event_holds_canonical_json_of_what_was_charged(ledger_of_three: Path) -> None:
    with closing(sqlite3.connect(ledger_of_three)) as connection:
        rows = connection.execute("SELECT event, typeof(event) FROM charges").fetchall()
    assert rows == [('{"kind":"zcdp","rho":0.001,"xi":0.0}', "text")] * 3
    assert event_from_json(json.loads(rows[0][0])) == ZCDpEvent(0.001)


def test_a_signature_is_about_one_kind_of_thing(ledger_of_three: Path) -> None:
    key = load_key(key_path(ledger_of_three))
    signature = key.sign(Signed.ENTRY, "text")
    assert is_signed(key.public, Signed.ENTRY, "text", signature)
    assert not is_signed(key.public, Signed.ANCHOR, "text", signature)
    assert not is_signed(key.public, Signed.ENTRY, "other", signature)
    for wrong in ("", "zz", "00" * 64, signature[:-2]):
        assert not is_signed(key.public, Signed.ENTRY, "text", wrong)
        assert not is_signed(wrong, Signed.ENTRY, "text", signature)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_use_is_refused_with_the_remedy(
    open_ledger: Open, path: Path, mode: int
) -> None:
    with open_ledger() as ledger:
        ledger.charge("q1", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    key = key_path(path)
    key.chmod(mode)
    with pytest.raises(LedgerError, match=rf"has mode {mode:04o}, .* run chmod 600 '{key}'"):
        open_ledger()
    assert verify(path).complete
    key.chmod(0o600)
    with open_ledger() as ledger:
        assert len(ledger.entries()) == 1


def test_a_ledger_whose_key_is_gone_charges_nothing_and_gets_no_other(
    open_ledger: Open, path: Path
) -> None:
    open_ledger().close()
    key_path(path).unlink()
    with pytest.raises(LedgerError, match="is missing, and without it nothing can be charged"):
        open_ledger()
    assert not key_path(path).exists()
    assert verify(path).complete


def test_a_ledger_is_bound_to_its_key(open_ledger: Open, path: Path) -> None:
    open_ledger().close()
    key_path(path).unlink()
    create_key(key_path(path))
    with pytest.raises(LedgerError, match=r"has public_key=[0-9a-f]{64}, not [0-9a-f]{64}"):
        open_ledger()


def test_a_file_that_is_no_key_is_refused(open_ledger: Open, path: Path) -> None:
    key = key_path(path)
    other = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in (b"", b"\x00", b"-----BEGIN PRIVATE KEY-----\n", other):
        key.write_bytes(content)
        key.chmod(0o600)
        with pytest.raises(LedgerError, match="is no Ed25519 key in PEM"):
            open_ledger()
    assert not path.exists()


def test_a_key_that_the_site_keeps_elsewhere_is_used_and_never_made(
    open_ledger: Open, path: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "secret.pem"
    with pytest.raises(LedgerError, match=r"secret.pem is missing"):
        open_ledger(key=elsewhere)
    create_key(elsewhere)
    open_ledger(key=elsewhere).close()
    assert not key_path(path).exists()
    assert read(path).public_key == load_key(elsewhere).public


def test_many_that_make_the_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    found = []

    def make() -> None:
        create_key(tmp_path / "a.key")
        found.append(load_key(tmp_path / "a.key").public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.key"]
