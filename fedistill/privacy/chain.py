"""The hash chain of a ledger and the anchor that says how long it was.

Entry k is canonical JSON; its hash is sha256(hash of entry k - 1, newline, entry k), and entry 0 is
the ledger's header. A shortened chain is still a chain, so the count and head are also kept in an
anchor file, outside the database. The site's key signs every hash and the anchor.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fedistill.errors import LedgerError
from fedistill.privacy.ledger_disk import locked_directory, put_file
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


def anchor_path(ledger: Path) -> Path:
    """Where the anchor of `ledger` lies: beside it, with `.anchor` appended to its name."""
    return ledger.with_name(ledger.name + ".anchor")


def read_anchor(ledger: Path) -> Anchor | None:
    """The anchor of `ledger`, or None where there is none.

    Raises:
        LedgerError: the anchor cannot be read or is not one.
    """
    try:
        return read_anchor_file(anchor_path(ledger))
    except FileNotFoundError:
        return None


def read_anchor_file(path: Path) -> Anchor:
    """The anchor at `path`, its signature unchecked.

    Raises:
        FileNotFoundError: there is none.
        LedgerError: it cannot be read or is not one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if set(value) == {"count", "head"}:
            raise LedgerError(f"anchor {path} {other_format('1')}")
        if not isinstance(value["count"], int) or value["count"] < 0:
            raise ValueError("not an anchor")
        if not all(isinstance(value[key], str) for key in ("head", "public_key", "signature")):
            raise ValueError("not an anchor")
        return Anchor(**value)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LedgerError(
            f"anchor {path} cannot be read ({error}): restore it from a backup made after the "
            "ledger's last charge"
        ) from error


def write_anchor(ledger: Path, anchor: Anchor) -> None:
    """Put `anchor` beside `ledger`, on disk when this returns, unless a newer one is there.

    Raises:
        OSError: it cannot be written.
    """
    path = anchor_path(ledger)
    with locked_directory(path.parent) as directory:
        # Two processes that charged one after the other may arrive here in either order.
        known = read_anchor(ledger)
        if known is None or known.count < anchor.count:
            put_file(path, f"{canonical(asdict(anchor))}\n".encode(), directory)


def _anchor_text(count: int, head: str) -> str:
    return f"{count}\n{head}"
