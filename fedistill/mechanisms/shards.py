"""Private rows dealt to disjoint shards by a secret keyed hash.

Without units, a row goes by the hash of its bytes and of how many equal rows it follows (its copy
number). For any key, removing one of m equal rows removes the bytes with copy number m - 1, and
all others stay where they are: one shard loses a row. Replacing a row swaps one hashed text for
another that no other row has; under a random function both are equally likely to lie anywhere, so
the two data sets can be coupled such that one shard changes. BLAKE2b with a fresh secret key
stands for the random function.

With units, all rows of a unit go by the hash of the unit's code, so a whole unit lies in one shard.
(Should the codes of other units change when one leaves, the same coupling holds.)

Within a shard, rows are sorted by the hash of their bytes: a shard is a function of the set of its
rows, not of the order in which a site keeps them.
"""

import hashlib
import secrets
from collections import Counter

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows

_KEY_BYTES = 32
_DIGEST_BYTES = 16


def deal(rows: LabelledRows, num_shards: int) -> list[npt.NDArray[np.int64]]:
    """Indices of each shard's rows, in the shard's own order; fresh and secret in each call.

    Args:
        rows: Any number of rows.
        num_shards: Public, at least 1. Some shards may stay empty.
    """
    return deal_by_key(rows, num_shards, secrets.token_bytes(_KEY_BYTES))


def deal_by_key(rows: LabelledRows, num_shards: int, key: bytes) -> list[npt.NDArray[np.int64]]:
    """As `deal`, with a key of up to 64 bytes."""

    def digest(text: bytes) -> bytes:
        return hashlib.blake2b(text, key=key, digest_size=_DIGEST_BYTES).digest()

    texts = _record_bytes(rows)
    if rows.units is None:
        owners = _with_copy_numbers(texts)
    else:
        owners = [b"unit" + int(code).to_bytes(8, "little", signed=True) for code in rows.units]
    shard_of = [int.from_bytes(digest(b"shard" + owner)) % num_shards for owner in owners]
    place = [digest(b"order" + text) for text in texts]
    shards: list[list[int]] = [[] for _ in range(num_shards)]
    for row in sorted(range(len(texts)), key=place.__getitem__):
        shards[shard_of[row]].append(row)
    return [np.array(shard, dtype=np.int64) for shard in shards]


def _record_bytes(rows: LabelledRows) -> list[bytes]:
    """Values and label of each row, bit by bit."""
    values, labels = rows.rows.astype("<f4"), rows.labels.astype("<i8")
    return [row.tobytes() + label.tobytes() for row, label in zip(values, labels, strict=True)]


def _with_copy_numbers(texts: list[bytes]) -> list[bytes]:
    seen: Counter[bytes] = Counter()
    numbered = []
    for text in texts:
        numbered.append(text + seen[text].to_bytes(8, "little"))
        seen[text] += 1
    return numbered
