"""The hash chain of a ledger and the anchor that says how long it was.

Entry k is canonical JSON; its hash is sha256(hash of entry k - 1, newline, entry k), and entry 0 is
the ledger's header. A shortened chain is still a chain, so the count and head are also kept in an
anchor file, outside the database. The site's key signs every hash and the anchor.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from fedistill.privacy.ledger_key import Signed, SiteKey, is_signed

FORMAT = "2"
"""Format of ledger and anchor: 2 signs; 1 did not, and is refused."""


def other_format(found: str) -> str:
    """What to do about a file of another format."""
    return (
        f"has format {found}, this version reads format {FORMAT}: use the version of fedistill "
        "that wrote it, or start a ledger of its own and take what the old one spent off its budget"
    )


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """How many charges a ledger held at least, and the hash (hex) of the last of them.

    `public_key` and `signature` are the site's, in hex.
    """

    count: int
    head: str
    public_key: str
    signature: str

    @classmethod
    def sign(cls, key: SiteKey, *, count: int, head: str) -> Self:
        """The anchor of a ledger that holds `count` charges and ends with the hash `head`."""
        signature = key.sign(Signed.ANCHOR, _anchor_text(count, head))
        return cls(count=count, head=head, public_key=key.public, signature=signature)

    @property
    def is_signed(self) -> bool:
        """Whether the holder of `public_key` wrote it."""
        text = _anchor_text(self.count, self.head)
        return is_signed(self.public_key, Signed.ANCHOR, text, self.signature)


def canonical(value: Mapping[str, Any]) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def link(previous: str, entry: str) -> str:
    """Hash (hex) of an entry that follows the entry with hash `previous`."""
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()


def _anchor_text(count: int, head: str) -> str:
    return f"{count}\n{head}"
