"""The anchor file of a ledger: how many charges it held at least, kept outside the database.

Lines of `LINE` bytes, each a signed `Anchor` in JSON, padded with spaces; the last one counts. At
rest there is one. While a ledger is open every charge adds a line, so that a charge costs the disk
no sync beyond its own: no earlier line is touched, and a line fits in one sector of a disk, so a
crash leaves it whole or not at all.

A new line is on disk after `sync_anchor` only. A power cut before that leaves an anchor that is
behind its ledger, never ahead of it: the charge was on disk before its line was written.
"""

import json
import os
from dataclasses import asdict
from errno import ENOSPC
from pathlib import Path

from fedistill.errors import LedgerError
from fedistill.privacy.chain import Anchor, canonical, other_format
from fedistill.privacy.ledger_disk import locked_directory, put_file

LINE = 512
"""Bytes of a line: the smallest sector of a disk."""

MOST_LINES = 128
"""Lines that a file may have before it is written anew with one, for an open ledger's sake."""


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
        value = json.loads(_last_line(path.read_bytes()).decode())
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
    """Put `anchor` beside `ledger`, on disk when this returns, unless one as new is there.

    Raises:
        LedgerError: the anchor that is there cannot be read.
        OSError: it cannot be written.
    """
    path = anchor_path(ledger)
    with locked_directory(path.parent) as directory:
        known = read_anchor(ledger)
        if known is None or known.count < anchor.count:
            put_file(path, _line(anchor), directory)


def add_to_anchor(ledger: Path, anchor: Anchor) -> None:
    """Add `anchor` as a line, unless one as new is there; on disk after `sync_anchor`.

    Raises:
        LedgerError: the anchor that is there cannot be read.
        OSError: it cannot be written, perhaps with a part of the line, which does not count.
    """
    path = anchor_path(ledger)
    with locked_directory(path.parent) as directory:
        # Two processes that charged one after the other may arrive here in either order.
        known = read_anchor(ledger)
        if known is not None and known.count >= anchor.count:
            return
        size = path.stat().st_size if known is not None else 0
        if size % LINE or not 0 < size < LINE * MOST_LINES:
            put_file(path, _line(anchor), directory)
        else:
            _append(path, _line(anchor))


def sync_anchor(ledger: Path) -> None:
    """Have every line on disk.

    Raises:
        OSError: the disk does not take them, or the anchor is gone.
    """
    file = os.open(anchor_path(ledger), os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def settle_anchor(ledger: Path) -> None:
    """Leave the last line alone in the file, on disk when this returns.

    Raises:
        LedgerError: the anchor that is there cannot be read.
        OSError: it cannot be written; every line is still there.
    """
    path = anchor_path(ledger)
    with locked_directory(path.parent) as directory:
        known = read_anchor(ledger)
        if known is not None and path.stat().st_size != LINE:
            put_file(path, _line(known), directory)


def anchor_to_bytes(ledger: Path) -> bytes:
    """The anchor of `ledger` for whoever keeps a copy elsewhere, `LINE` bytes; b"" without any."""
    try:
        anchor = read_anchor(ledger)
    except LedgerError:
        return b""
    return b"" if anchor is None else _line(anchor)


def anchor_from_bytes(data: bytes) -> Anchor | None:
    """Inverse of `anchor_to_bytes`; None unless the key that it names signed it."""
    try:
        value = json.loads(data[:LINE])
        anchor = Anchor(**value)
        return anchor if type(anchor.count) is int and anchor.is_signed else None
    except (ValueError, TypeError, AttributeError):
        return None


def _append(path: Path, line: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        if os.write(file, line) < len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(file)


def _line(anchor: Anchor) -> bytes:
    return canonical(asdict(anchor)).encode().ljust(LINE - 1) + b"\n"


def _last_line(content: bytes) -> bytes:
    """The last whole line: after a power cut a file may end in zeros, or within a line."""
    starts = range(0, len(content), LINE)
    lines = [content[start : start + LINE] for start in starts]
    if len(lines) > 1 and len(lines[-1]) < LINE:
        lines.pop()
    while len(lines) > 1 and not lines[-1].strip(b"\0"):
        lines.pop()
    return lines[-1] if lines else b""
