"""The messages of a round, and their bytes.

    version (1) | kind (1) | hash of the terms (32) | place in the roster (2) | body

Numbers are big-endian, residues little-endian. Lengths depend on the roster, on who took part so
far and on the vector's length, all public (PRIVACY rule 4). Parsers take exactly that: another
version, kind, round or length is refused, and so are bytes left over.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np

from fedistill.errors import MessageRefused
from fedistill.secagg.keys import KEY_BYTES, SIGNATURE_BYTES
from fedistill.secagg.masks import Residues
from fedistill.secagg.sharing import SECRET_BYTES
from fedistill.secagg.terms import VERSION, RoundTerms

NONCE_BYTES = 12
CIPHERTEXT_BYTES = NONCE_BYTES + 2 * SECRET_BYTES + 16
_HEADER = struct.Struct(">BB32sH")
_COUNT = struct.Struct(">H")
_REVEALED = struct.Struct(f">HB{SECRET_BYTES}s")


class Kind(IntEnum):
    """Of a message."""

    KEYS = 1
    SHARES = 2
    DELIVERY = 3
    VECTOR = 4
    PARTICIPATION = 5
    SURVIVORS = 6
    REVEALED = 7


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
        return _encode(Kind.KEYS, self.round_id, self.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = _decode(Kind.KEYS, data, terms, 3 * KEY_BYTES + SIGNATURE_BYTES)
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
        return _encode(Kind.SHARES, self.round_id, self.sender, _pack_shares(self.shares))

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = _decode(Kind.SHARES, data, terms)
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
        return _encode(Kind.DELIVERY, self.round_id, self.receiver, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        receiver, body = _decode(Kind.DELIVERY, data, terms)
        size = (terms.num_sites + 7) // 8
        if len(body) < size:
            raise MessageRefused(f"{len(body)} bytes of body must be at least {size}: cut")
        return cls(
            round_id=terms.round_id,
            receiver=receiver,
            sharers=_get_bits(body[:size], terms),
            shares=_unpack_shares(body[size:], terms),
        )


@dataclass(frozen=True, kw_only=True)
class Participation:
    """A site's signed word among whom it masked: the sites that sent shares, as it was told."""

    round_id: bytes
    sender: int
    signature: bytes

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        return _encode(Kind.PARTICIPATION, self.round_id, self.sender, (self.signature,))

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = _decode(Kind.PARTICIPATION, data, terms, SIGNATURE_BYTES)
        return cls(round_id=terms.round_id, sender=sender, signature=body)


@dataclass(frozen=True, kw_only=True)
class MaskedVector:
    """A site's masked integers, (length,) uint32, and its word among whom it masked."""

    participation: Participation
    residues: Residues

    @property
    def sender(self) -> int:
        """The site's place in the roster."""
        return self.participation.sender

    def to_bytes(self) -> bytes:
        """The message's encoding: 4 bytes a value and 100 more."""
        word = self.participation
        body = (word.signature, self.residues.astype("<u4", copy=False).tobytes())
        return _encode(Kind.VECTOR, word.round_id, word.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = _decode(Kind.VECTOR, data, terms, SIGNATURE_BYTES + 4 * terms.length)
        word = Participation(
            round_id=terms.round_id, sender=sender, signature=body[:SIGNATURE_BYTES]
        )
        residues = np.frombuffer(body, "<u4", offset=SIGNATURE_BYTES).astype(np.uint32, copy=False)
        return cls(participation=word, residues=residues)


@dataclass(frozen=True, kw_only=True)
class SurvivorSignature:
    """A site's signature of who shared and who survived. It signs once a round."""

    round_id: bytes
    sender: int
    signature: bytes

    def to_bytes(self) -> bytes:
        """The message's encoding."""
        return _encode(Kind.SURVIVORS, self.round_id, self.sender, (self.signature,))

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = _decode(Kind.SURVIVORS, data, terms, SIGNATURE_BYTES)
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
        return _encode(Kind.REVEALED, self.round_id, self.sender, body)

    @classmethod
    def from_bytes(cls, data: bytes, terms: RoundTerms) -> Self:
        """Inverse of `to_bytes`; raises MessageRefused."""
        sender, body = _decode(Kind.REVEALED, data, terms)
        if not body or len(body) % _REVEALED.size:
            raise MessageRefused(f"{len(body)} bytes of shares must be times {_REVEALED.size}")
        try:
            shares = tuple(
                RevealedShare(peer=peer, secret=Secret(secret), share=share)
                for peer, secret, share in _REVEALED.iter_unpack(body)
            )
        except ValueError as error:
            raise MessageRefused(f"a revealed share must be of a known secret: {error}") from error
        _check_order([one.peer for one in shares], terms)
        return cls(round_id=terms.round_id, sender=sender, shares=shares)


def set_bits(sites: Iterable[int], terms: RoundTerms) -> bytes:
    """A set of sites as one bit each, the roster's first site in the lowest."""
    bits = sum(1 << site for site in set(sites))
    return bits.to_bytes((terms.num_sites + 7) // 8, "little")


def _get_bits(data: bytes, terms: RoundTerms) -> tuple[int, ...]:
    bits = int.from_bytes(data, "little")
    if bits >> terms.num_sites:
        raise MessageRefused(f"a set of sites must name none beyond the {terms.num_sites}")
    return tuple(site for site in range(terms.num_sites) if bits >> site & 1)


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
    _check_order([one.peer for one in shares], terms)
    return shares


def _check_order(peers: list[int], terms: RoundTerms) -> None:
    if peers != sorted(set(peers)) or any(peer >= terms.num_sites for peer in peers):
        raise MessageRefused(f"peers {peers} must be of the roster, in its order, each once")


def _encode(kind: Kind, round_id: bytes, sender: int, body: Iterable[bytes]) -> bytes:
    return b"".join((_HEADER.pack(VERSION, kind, round_id, sender), *body))


def _decode(
    kind: Kind, data: bytes, terms: RoundTerms, length: int | None = None
) -> tuple[int, bytes]:
    """Sender and body of a message of this kind and round, with a body of `length` if given.

    Raises:
        MessageRefused: It is another message.
    """
    if len(data) < _HEADER.size:
        raise MessageRefused(f"{len(data)} bytes must be at least {_HEADER.size}: truncated")
    version, found, round_id, sender = _HEADER.unpack_from(data)
    if version != VERSION:
        raise MessageRefused(f"version={version} must be {VERSION}: use one release everywhere")
    if found != kind:
        raise MessageRefused(f"kind={found} must be {kind} ({kind.name.lower()})")
    if round_id != terms.round_id:
        raise MessageRefused("the message is of another run or round, or of other terms")
    if sender >= terms.num_sites:
        raise MessageRefused(f"sender={sender} must be below {terms.num_sites}, the sites")
    body = data[_HEADER.size :]
    if length is not None and len(body) != length:
        raise MessageRefused(f"{len(body)} bytes of body must be {length}: cut, or too long")
    return sender, body
