"""Whether anybody edited, cut, replaced or removed a ledger: found without the site's key."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fedistill.errors import LedgerError
from fedistill.privacy.chain import Anchor
from fedistill.privacy.ledger_anchor import anchor_path, read_anchor, read_anchor_file
from fedistill.privacy.ledger_contents import Contents, read_contents
from fedistill.privacy.ledger_file import check_pages, connect_to_read, ledger_errors
from fedistill.privacy.ledger_release import all_releases


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found.

    Attributes:
        valid: Nothing contradicts the ledger.
        complete: True when no charge that the anchor knows is missing, None when there is no anchor
            to tell, False when charges are missing.
        entries: How many charges the ledger holds.
        message: The finding in a sentence or two.
    """

    valid: bool
    complete: bool | None
    entries: int
    message: str


def verify(path: Path, *, anchor_file: Path | None = None) -> Verification:
    """Check a ledger: pages, chain, signatures, anchor, stored releases. Changes nothing.

    A ledger can only be proved complete against something that was not rewound with it. The anchor
    beside it shows accidents and careless edits; whoever rewinds both is seen against a copy of the
    anchor that was kept elsewhere, `anchor_file`, and not otherwise.
    """
    anchor = None
    try:
        anchor = read_anchor_file(anchor_file) if anchor_file else read_anchor(path)
        if not path.exists():
            return _invalid(_gone(path, anchor), 0)
        with ledger_errors(path), closing(connect_to_read(path)) as connection:
            check_pages(connection)
            contents = read_contents(connection)
            fault = contents.fault(anchor) or _release_fault(connection, contents)
    except LedgerError as error:
        return _invalid(f"{error}{_unread(anchor)}", 0)
    count = len(contents.entries)
    if fault:
        return _invalid(fault, count)
    if anchor is None:
        return Verification(
            valid=True,
            complete=None,
            entries=count,
            message=f"prefix valid, completeness unknown: {anchor_path(path).name} is missing",
        )
    witness = anchor_file or anchor_path(path)
    return Verification(
        valid=True,
        complete=True,
        entries=count,
        message=f"valid, and complete as far as {witness.name} can tell",
    )


def _release_fault(connection: sqlite3.Connection, contents: Contents) -> str | None:
    """Which stored answer was edited, in a sentence, or None."""
    for row in all_releases(connection):
        if not 1 <= row.sequence <= len(contents.entries):
            return f"there is a stored release for entry {row.sequence}, which does not exist"
        if not row.is_sound(contents.public_key, contents.hash_of(row.sequence)):
            return f"the stored release of entry {row.sequence} was edited"
    return None


def _gone(path: Path, anchor: Anchor | None) -> str:
    charges = f" of {anchor.count} charges" if anchor else ""
    gone = f": entries 0 to {anchor.count} are missing" if anchor else ""
    return f"no ledger at {path}, though its anchor{charges} is there{gone}"


def _unread(anchor: Anchor | None) -> str:
    """Which entries are lost with a file that cannot be read, as far as anything tells."""
    return f" (not read: entries 0 to {anchor.count}, which its anchor saw)" if anchor else ""


def _invalid(message: str, entries: int) -> Verification:
    return Verification(valid=False, complete=False, entries=entries, message=message)
