"""The messages of a round, and their bytes.

Lengths depend on the roster, on who took part so far and on the vector's length, all of them public
(PRIVACY rule 4).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np

from fedistill.errors import MessageRefused
from fedistill.secagg.keys import KEY_BYTES, SIGNATURE_BYTES
from fedistill.secagg.masks import Residues
from fedistill.secagg.sharing import SECRET_BYTES
from fedistill.secagg.terms import RoundTerms
from fedistill.secagg.wire import Kind, check_order, decode, encode, get_bits, set_bits

NONCE_BYTES = 12
_HASH_BYTES = 32
_WORD_BYTES = _HASH_BYTES + SIGNATURE_BYTES
CIPHERTEXT_BYTES = NONCE_BYTES + 2 * SECRET_BYTES + 16
_COUNT = struct.Struct(">H")
_REVEALED = struct.Struct(f">HB{SECRET_BYTES}s")


@dataclass(frozen=True, kw_only=True)
class KeyAdvert:
    """A site's keys of this round, signed by its identity.

    Attributes:
        round_id: Hash of the terms.
        sender: The site's place in the roster.
        mask_key: X25519 public key that masks are agreed with.
        share_key: X25519 public key that shares are encrypted with.
        seed_commitment: Hash of the seed of the site's own mask, by which a wrong one is noticed.
        signature: Ed25519, over all of the above.
    """

    round_id: bytes
    sender: int
    mask_key: bytes
    share_key: bytes
    seed_commitment: bytes
    signature: bytes

    @property
    def signed_parts(self) -> tuple[bytes, ...]:
        """What the signature covers besides the terms."""
        sender = _COUNT.pack(self.sender)
        return sender, self.mask_key, self.share_key, self.seed_commitment

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        body = (self.mask_key, self.share_key, self.seed_commitment, self.signature)
        return encode(Kind.KEYS, self.round_id, self.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = decode(Kind.KEYS, data, terms, 3 * KEY_BYTES + SIGNATURE_BYTES)
        mask_key, share_key, commitment = (
            body[start : start + KEY_BYTES] for start in range(0, 3 * KEY_BYTES, KEY_BYTES)
        )
        return cls(
            round_id=terms.round_id,
            sender=sender,
            mask_key=mask_key,
            share_key=share_key,
            seed_commitment=commitment,
            signature=body[3 * KEY_BYTES :],
        )


@dataclass(frozen=True, kw_only=True)
class EncryptedShare:
    """One peer's share of two secrets, for that peer's eyes: nonce, then ciphertext and tag."""

    peer: int
    ciphertext: bytes


@dataclass(frozen=True, kw_only=True)
class ShareBundle:
    """A site's encrypted shares, one `EncryptedShare` for each peer, in the roster's order."""

    round_id: bytes
    sender: int
    shares: tuple[EncryptedShare, ...]

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        return encode(Kind.SHARES, self.round_id, self.sender, _pack_shares(self.shares))

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = decode(Kind.SHARES, data, terms)
        return cls(round_id=terms.round_id, sender=sender, shares=_unpack_shares(body, terms))


@dataclass(frozen=True, kw_only=True)
class ShareDelivery:
    """What the server hands to one site.

    Attributes:
        round_id: Hash of the terms.
        receiver: The site's place in the roster.
        sharers: Places of all sites that sent shares, in order.
        shares: One from each of the receiver's peers among them, `peer` being who sent it.
    """

    round_id: bytes
    receiver: int
    sharers: tuple[int, ...]
    shares: tuple[EncryptedShare, ...]

    def to_bytes(self, terms: RoundTerms) -> bytes:
        """The message's encoding."""
        body = (set_bits(self.sharers, terms), *_pack_shares(self.shares))
        return encode(Kind.DELIVERY, self.round_id, self.receiver, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        receiver, body = decode(Kind.DELIVERY, data, terms)
        size = (terms.num_sites + 7) // 8
        if len(body) < size:
            raise MessageRefused(f"{len(body)} bytes of body must be at least {size}: cut")
        return cls(
            round_id=terms.round_id,
            receiver=receiver,
            sharers=get_bits(body[:size], terms),
            shares=_unpack_shares(body[size:], terms),
        )


@dataclass(frozen=True, kw_only=True)
class Participation:
    """A site's signed word what it sent, and among whom it masked.

    Attributes:
        round_id: Hash of the terms.
        sender: The site's place in the roster.
        vector_sha256: Hash of its masked vector.
        signature: Ed25519, over all of the above and the sites that sent shares, as it was told.
    """

    round_id: bytes
    sender: int
    vector_sha256: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        body = (self.vector_sha256, self.signature)
        return encode(Kind.PARTICIPATION, self.round_id, self.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = decode(Kind.PARTICIPATION, data, terms, _WORD_BYTES)
        return cls(
            round_id=terms.round_id,
            sender=sender,
            vector_sha256=body[:_HASH_BYTES],
            signature=body[_HASH_BYTES:],
        )


@dataclass(frozen=True, kw_only=True)
class MaskedVector:
    """A site's masked integers, (length,) uint32, and its word about them."""

    participation: Participation
    residues: Residues

    @property
    def sender(self) -> int:
        """The site's place in the roster."""
        return self.participation.sender

    def to_bytes(self) -> bytes:
        """The message's encoding: 4 bytes a value and 132 more."""
        word = self.participation
        body = (word.vector_sha256, word.signature, residues_to_bytes(self.residues))
        return encode(Kind.VECTOR, word.round_id, word.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = decode(Kind.VECTOR, data, terms, _WORD_BYTES + 4 * terms.length)
        word = Participation(
            round_id=terms.round_id,
            sender=sender,
            vector_sha256=body[:_HASH_BYTES],
            signature=body[_HASH_BYTES:_WORD_BYTES],
        )
        residues = np.frombuffer(body, "<u4", offset=_WORD_BYTES).astype(np.uint32, copy=False)
        return cls(participation=word, residues=residues)


def residues_to_bytes(residues: Residues) -> bytes:
    """Residues as they travel, and as they are hashed."""
    return residues.astype("<u4", copy=False).tobytes()


@dataclass(frozen=True, kw_only=True)
class SurvivorSignature:
    """A site's signature of who shared and who survived. It signs once a round."""

    round_id: bytes
    sender: int
    signature: bytes

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        return encode(Kind.SURVIVORS, self.round_id, self.sender, (self.signature,))

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = decode(Kind.SURVIVORS, data, terms, SIGNATURE_BYTES)
        return cls(round_id=terms.round_id, sender=sender, signature=body)


class Secret(IntEnum):
    """Which of a peer's secrets a revealed share is of."""

    NEITHER = 0
    SEED = 1
    MASK_KEY = 2


@dataclass(frozen=True, kw_only=True)
class RevealedShare:
    """A share of one of `peer`'s secrets; zeros of `NEITHER` where there is none to give."""

    peer: int
    secret: Secret
    share: bytes


@dataclass(frozen=True, kw_only=True)
class RevealedShares:
    """One `RevealedShare` for the site itself and each peer, in the roster's order."""

    round_id: bytes
    sender: int
    shares: tuple[RevealedShare, ...]

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        body = [_REVEALED.pack(one.peer, one.secret, one.share) for one in self.shares]
        return encode(Kind.REVEALED, self.round_id, self.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = decode(Kind.REVEALED, data, terms)
        if not body or len(body) % _REVEALED.size:
            raise MessageRefused(f"{len(body)} bytes of shares must be times {_REVEALED.size}")
        try:
            shares = tuple(
                RevealedShare(peer=peer, secret=Secret(secret), share=share)
                for peer, secret, share in _REVEALED.iter_unpack(body)
            )
        except ValueError as error:
            raise MessageRefused(f"a revealed share must be of a known secret: {error}") from error
        check_order([one.peer for one in shares], terms)
        return cls(round_id=terms.round_id, sender=sender, shares=shares)


def _pack_shares(shares: tuple[EncryptedShare, ...]) -> list[bytes]:
    return [part for one in shares for part in (_COUNT.pack(one.peer), one.ciphertext)]


def _unpack_shares(body: bytes, terms: RoundTerms) -> tuple[EncryptedShare, ...]:
    size = _COUNT.size + CIPHERTEXT_BYTES
    if len(body) % size:
        raise MessageRefused(f"{len(body)} bytes of encrypted shares must be times {size}")
    shares = tuple(
        EncryptedShare(
            peer=_COUNT.unpack_from(body, start)[0],
            ciphertext=body[start + _COUNT.size : start + size],
        )
        for start in range(0, len(body), size)
    )
    check_order([one.peer for one in shares], terms)
    return shares
