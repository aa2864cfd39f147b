"""The site's Ed25519 key: it signs every entry of the ledger, every stored release and the anchor.

A hash chain shows an edit to whoever has the old head; a signature shows to everyone that the
holder of the key wrote an entry. Whoever can read the key file can sign, so it has mode 0600.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedistill.errors import LedgerError
from fedistill.privacy.ledger_disk import locked_directory, put_file


class Signed(StrEnum):
    """What a signature is about: one for an entry is none for an anchor with the same hash."""

    ENTRY = "fedistill ledger entry"
    RELEASE = "fedistill ledger release"
    ANCHOR = "fedistill ledger anchor"
    REQUEST = "fedistill site request"
    RECEIPT = "fedistill receipt"
    COUNTERSIGNATURE = "fedistill countersignature"


@dataclass(frozen=True)
class SiteKey:
    """A site's private key."""

    private: Ed25519PrivateKey

    @cached_property
    def public(self) -> str:
        """The public key, 32 bytes in hex."""
        return self.private.public_key().public_bytes_raw().hex()

    def sign(self, what: Signed, text: str) -> str:
        """Signature (64 bytes in hex) of `text` as a `what`."""
        return self.private.sign(_message(what, text)).hex()


def is_signed(public_key: str, what: Signed, text: str, signature: str) -> bool:
    """Whether the holder of `public_key` signed `text` as a `what`."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), _message(what, text))
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public_key: str) -> str:
    """SHA-256 of a site's public key in hex: what people compare, and what sites pin."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()


def key_path(ledger: Path) -> Path:
    """Where a simulated site keeps its key: `<site>.key` beside `<site>.ledger.db`."""
    site = ledger.name.removesuffix(".db").removesuffix(".ledger")
    return ledger.with_name(f"{site}.key")


def create_key(path: Path) -> None:
    """Make a key where there is none; an existing one stays as it is.

    Raises:
        LedgerError: it cannot be written.
    """
    with _key_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return
        with locked_directory(path.parent) as directory:
            if path.exists():
                return
            private = Ed25519PrivateKey.generate()
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            put_file(path, pem, directory)


def load_key(path: Path) -> SiteKey:
    """The key at `path`.

    Raises:
        LedgerError: there is none, it is no Ed25519 key in PEM, or others can read it.
    """
    with _key_errors(path), path.open("rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise LedgerError(
                f"key {path} has mode {mode:04o}, so others than its owner can sign as this site: "
                f"run chmod 600 '{path}'"
            )
        pem = stream.read()
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(path) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(path)
    return SiteKey(private)


def _message(what: Signed, text: str) -> bytes:
    return f"{what}\n{text}".encode()


def _no_key(path: Path) -> LedgerError:
    return LedgerError(f"key {path} is no Ed25519 key in PEM: restore it from a backup")


@contextmanager
def _key_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise LedgerError(
            f"key {path} is missing, and without it nothing can be charged: restore it from a "
            "backup"
        ) from error
    except OSError as error:
        raise LedgerError(
            f"key {path}: {error.strerror or error}; nothing was released: check the disk and the "
            "permissions of its directory"
        ) from error
