"""Bytes of a message: its header, sets of sites, and what every parser refuses.

    version (1) | kind (1) | hash of the terms (32) | place in the roster (2) | body

Numbers are big-endian, residues little-endian. Parsers take exactly that: another version, kind,
round or length is refused, and so are bytes left over.
"""

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum

from fedistill.errors import MessageRefused
from fedistill.secagg.terms import VERSION, RoundTerms

_HEADER = struct.Struct(">BB32sH")


class Kind(IntEnum):
    """Of a message."""

    KEYS = 1
    SHARES = 2
    DELIVERY = 3
    VECTOR = 4
    PARTICIPATION = 5
    SURVIVORS = 6
    REVEALED = 7


def encode(kind: Kind, round_id: bytes, sender: int, body: Iterable[bytes]) -> bytes:
    """Header and body."""
    return b"".join((_HEADER.pack(VERSION, kind, round_id, sender), *body))


def decode(
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


def set_bits(sites: Iterable[int], terms: RoundTerms) -> bytes:
    """A set of sites as one bit each, the roster's first site in the lowest."""
    bits = sum(1 << site for site in set(sites))
    return bits.to_bytes((terms.num_sites + 7) // 8, "little")


def get_bits(data: bytes, terms: RoundTerms) -> tuple[int, ...]:
    """Inverse of `set_bits`; raises MessageRefused."""
    bits = int.from_bytes(data, "little")
    if bits >> terms.num_sites:
        raise MessageRefused(f"a set of sites must name none beyond the {terms.num_sites}")
    return tuple(site for site in range(terms.num_sites) if bits >> site & 1)


def check_order(peers: Sequence[int], terms: RoundTerms) -> None:
    """Raise MessageRefused unless `peers` are of the roster, in its order, each once."""
    if list(peers) != sorted(set(peers)) or any(peer >= terms.num_sites for peer in peers):
        raise MessageRefused(f"peers {peers} must be of the roster, in its order, each once")
