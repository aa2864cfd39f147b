"""Signatures and agreed keys. Every use of a key has a name of its own, and is bound to its round.

Ed25519 signs, X25519 agrees, HKDF-SHA256 (RFC 5869) derives; `cryptography` has them all.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedistill.errors import MessageRefused

KEY_BYTES = 32
SIGNATURE_BYTES = 64


class Signed(StrEnum):
    """What a signature is about."""

    KEYS = "fedistill secagg 1 keys"
    PARTICIPATION = "fedistill secagg 1 participation"
    SURVIVORS = "fedistill secagg 1 survivors"


class Derived(StrEnum):
    """What a derived key is for."""

    PAIR_MASK = "fedistill secagg 1 pair mask"
    SELF_MASK = "fedistill secagg 1 self mask"
    SHARE = "fedistill secagg 1 share"


def sign(identity: bytes, what: Signed, round_id: bytes, parts: Iterable[bytes]) -> bytes:
    """Signature (64 bytes) by a raw Ed25519 key; `parts` have lengths that the round fixes."""
    key = Ed25519PrivateKey.from_private_bytes(identity)
    return key.sign(_signed_bytes(what, round_id, parts))


def is_signed(
    public: bytes, what: Signed, round_id: bytes, parts: Iterable[bytes], signature: bytes
) -> bool:
    """Whether the holder of a raw Ed25519 public key signed `parts` as a `what` of this round."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, _signed_bytes(what, round_id, parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def public_of(private: bytes) -> bytes:
    """Raw X25519 public key (32 bytes) of a raw private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def fresh_private_key() -> bytes:
    """A raw X25519 private key (32 bytes) from the operating system's CSPRNG."""
    return X25519PrivateKey.generate().private_bytes_raw()


def is_usable(public: bytes) -> bool:
    """Whether an X25519 public key gives secrets: those of low order give zeros to everyone."""
    try:
        _throwaway().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


@cache
def _throwaway() -> X25519PrivateKey:
    return X25519PrivateKey.generate()


def agree_key(private: bytes, public: bytes, what: Derived, salt: bytes, info: bytes) -> bytes:
    """The 32-byte key that the holders of two X25519 keys share for one purpose.

    Raises:
        MessageRefused: The public key is of low order.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError as error:
        raise MessageRefused("a public key of low order must not be used") from error
    return derive(secret, what, salt, info)


def derive(secret: bytes, what: Derived, salt: bytes, info: bytes) -> bytes:
    """A 32-byte key for one purpose; `info` has a length fixed by the purpose."""
    label = what.encode() + b"\0" + info
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=label).derive(secret)


def _signed_bytes(what: Signed, round_id: bytes, parts: Iterable[bytes]) -> bytes:
    return b"\0".join((what.encode(), round_id + b"".join(parts)))
