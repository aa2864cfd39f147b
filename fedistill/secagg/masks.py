"""Masks: AES-256-CTR streams read as residues of 2^32, and the vectors they hide.

A site's vector carries its own mask and, with each peer, a mask that the site of the lower place in
the roster adds and the other subtracts (Bonawitz et al. 2017, section 4). Without its key a stream
is indistinguishable from uniform residues, so a vector is too. No stream is used twice: its key is
derived from secrets that are fresh in every round, with a label of its own (PRIVACY rule 15).
"""

import struct

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedistill.secagg.keys import Derived, agree_key, derive

Residues = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]

_BLOCK = 16
_CHUNK = 2**16
"""Residues at a time: they stay in the processor's cache between cipher and sum."""


def pair_key(private: bytes, public: bytes, transcript: bytes, pair: tuple[int, int]) -> bytes:
    """The 32-byte key of the mask that two sites share; `pair` holds their places, any order."""
    info = struct.pack(">HH", *sorted(pair))
    return agree_key(private, public, Derived.PAIR_MASK, transcript, info)


def self_key(seed: bytes, transcript: bytes, site: int) -> bytes:
    """The 32-byte key of a site's own mask."""
    return derive(seed, Derived.SELF_MASK, transcript, struct.pack(">H", site))


def add_mask(total: Residues, key: bytes, *, subtract: bool = False) -> None:
    """Add a key's stream to `total`, (length,) uint32, in place and modulo 2^32.

    The stream is AES-256-CTR from counter 0, in little-endian words of 32 bits.
    """
    stream = Cipher(AES(key), CTR(bytes(_BLOCK))).encryptor()
    zeros = bytes(4 * min(_CHUNK, len(total)))
    buffer = bytearray(len(zeros) + _BLOCK - 1)
    apply = np.subtract if subtract else np.add
    for start in range(0, len(total), _CHUNK):
        part = total[start : start + _CHUNK]
        stream.update_into(memoryview(zeros)[: 4 * len(part)], buffer)
        mask = np.frombuffer(buffer, "<u4", count=len(part))
        apply(part, mask, out=part)


def to_residues(integers: Integers) -> Residues:
    """Integers modulo 2^32, uint32."""
    return integers.astype(np.uint32)


def to_integers(residues: Residues) -> Integers:
    """The integers in [-2^31, 2^31) that have these residues, int64."""
    return residues.view(np.int32).astype(np.int64)
