"""The hash chain of a ledger and the anchor that says how long it was.

Entry k is canonical JSON; its hash is sha256(hash of entry k - 1, newline, entry k), and entry 0 is
the ledger's header. A shortened chain is still a chain, so the count and head are also kept in an
anchor file, outside the database.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedistill.errors import LedgerError


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """How many charges a ledger held at least, and the hash (hex) of the last of them."""

    count: int
    head: str


def canonical(value: Mapping[str, Any]) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def link(previous: str, entry: str) -> str:
    """Hash (hex) of an entry that follows the entry with hash `previous`."""
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()


def chain(header: str, entries: Iterable[str]) -> list[str]:
    """Hashes of the header and of every entry after it."""
    hashes = [link("", header)]
    for entry in entries:
        hashes.append(link(hashes[-1], entry))
    return hashes


def check_chain(hashes: Sequence[str], stored: Sequence[str], anchor: Anchor | None) -> str | None:
    """What is wrong with a chain, in a sentence, or None.

    Args:
        hashes: What `chain` computes from the ledger's header and entries.
        stored: The hashes that the ledger recorded for its entries.
        anchor: The ledger's anchor, where there is one.
    """
    for number, (computed, recorded) in enumerate(zip(hashes[1:], stored, strict=True), start=1):
        if computed != recorded:
            return f"entry {number} or one before it was edited: its hash does not match"
    if anchor is None:
        return None
    if len(stored) < anchor.count:
        return (
            f"it is behind its anchor ({len(stored)} charges, the anchor saw {anchor.count}): it "
            "was cut short or replaced by an older copy"
        )
    if hashes[anchor.count] != anchor.head:
        return f"charge {anchor.count} is not the one its anchor saw: the ledger was replaced"
    return None


def anchor_path(ledger: Path) -> Path:
    """Where the anchor of `ledger` lies: beside it, with `.anchor` appended to its name."""
    return ledger.with_name(ledger.name + ".anchor")


def read_anchor(ledger: Path) -> Anchor | None:
    """The anchor of `ledger`, or None where there is none.

    Raises:
        LedgerError: the anchor cannot be read or is not one.
    """
    path = anchor_path(ledger)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if set(value) != {"count", "head"} or not isinstance(value["count"], int):
            raise ValueError("not an anchor")
        return Anchor(count=value["count"], head=str(value["head"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
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
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        # Two processes that charged one after the other may arrive here in either order.
        fcntl.flock(directory, fcntl.LOCK_EX)
        known = read_anchor(ledger)
        if known is not None and known.count >= anchor.count:
            return
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(canonical(asdict(anchor)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        os.fsync(directory)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
        os.close(directory)
