"""The file of a ledger: its schema, and how it is made, read and verified."""

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from fedistill.errors import LedgerError
from fedistill.privacy.chain import (
    Anchor,
    anchor_path,
    canonical,
    chain,
    check_chain,
    read_anchor,
    write_anchor,
)
from fedistill.privacy.charge import Charge

LOCK_SECONDS = 30.0

# INSERT OR REPLACE deletes rows without firing DELETE triggers, so inserts are guarded too.
_SCHEMA = (
    "CREATE TABLE header (id INTEGER PRIMARY KEY CHECK (id = 1), entry TEXT NOT NULL)",
    "CREATE TABLE charges (sequence INTEGER PRIMARY KEY, entry TEXT NOT NULL, hash TEXT NOT NULL,"
    " question TEXT GENERATED ALWAYS AS (json_extract(entry, '$.question')) VIRTUAL)",
    "CREATE INDEX charges_question ON charges (question)",
    "CREATE TABLE releases (sequence INTEGER PRIMARY KEY REFERENCES charges (sequence),"
    " release BLOB NOT NULL, teacher BLOB NOT NULL, sha256 TEXT NOT NULL)",
    "CREATE TRIGGER header_once BEFORE INSERT ON header WHEN EXISTS (SELECT 1 FROM header)"
    " BEGIN SELECT RAISE(ABORT, 'a ledger has one header'); END",
    "CREATE TRIGGER charges_in_order BEFORE INSERT ON charges"
    " WHEN NEW.sequence IS NOT (SELECT COALESCE(MAX(sequence), 0) + 1 FROM charges)"
    " BEGIN SELECT RAISE(ABORT, 'charges are numbered one by one'); END",
    "CREATE TRIGGER releases_once BEFORE INSERT ON releases"
    " WHEN EXISTS (SELECT 1 FROM releases WHERE sequence = NEW.sequence)"
    " BEGIN SELECT RAISE(ABORT, 'a charge has one release'); END",
    *(
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}"
        " BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END"
        for table in ("header", "charges", "releases")
        for verb in ("UPDATE", "DELETE")
    ),
)

_WAYS_OUT = {
    "SQLITE_BUSY": "another process holds it: wait for that to end, then ask again",
    "SQLITE_LOCKED": "another process holds it: wait for that to end, then ask again",
    "SQLITE_FULL": "free some disk space, then ask again",
    "SQLITE_IOERR": "check its disk and the free space on it, then ask again",
    "SQLITE_READONLY": "make the file and its directory writable for the user that runs the site",
    "SQLITE_CANTOPEN": "check that the file exists and that this user may open it",
    "SQLITE_NOTADB": "restore it from a backup that is not behind its anchor",
    "SQLITE_CORRUPT": "restore it from a backup that is not behind its anchor",
}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A ledger as it lies on disk: the texts of header and entries, and the recorded hashes."""

    header_text: str
    entries: tuple[str, ...]
    recorded: tuple[str, ...]

    @cached_property
    def hashes(self) -> list[str]:
        """Computed hashes of the header and of every entry."""
        return chain(self.header_text, self.entries)

    @property
    def anchor(self) -> Anchor:
        """The anchor that belongs to these contents."""
        return Anchor(count=len(self.entries), head=self.hashes[-1])

    @property
    def header(self) -> dict[str, str]:
        """Population, adjacency and unit, and the ledger's random id."""
        try:
            header: dict[str, str] = json.loads(self.header_text)
        except ValueError as error:
            raise LedgerError("the ledger's header is damaged: verify the ledger") from error
        return header

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All charges, oldest first."""
        return tuple(map(Charge.from_entry, self.entries, self.recorded))


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


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise into LedgerError with a way out."""
    try:
        yield
    # sqlite3 raises UnicodeDecodeError for a message that quotes damaged bytes.
    except (sqlite3.Error, UnicodeDecodeError) as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        ways = (way for prefix, way in _WAYS_OUT.items() if name.startswith(prefix))
        way = next(ways, "check the file and its disk")
        raise LedgerError(f"ledger {path}: {error}; nothing was released: {way}") from error
    except OSError as error:
        raise LedgerError(
            f"ledger {path}: {error.strerror or error}; nothing was released: check the disk and "
            "the permissions of its directory"
        ) from error


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to an existing ledger, durable at every commit; mode `rw` or `ro`."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=EXTRA")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the ledger's write lock; commit at the end, roll back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create(path: Path, header: Mapping[str, str]) -> None:
    """Make the ledger and its anchor, or finish what a crash interrupted; else change nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The journal takes its mode from the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(connect(path, "rw")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        with transaction(connection):
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA:
                    connection.execute(statement)
                # Without an id of its own, a new ledger could pass for an emptied old one.
                text = canonical({"format": "1", "id": secrets.token_hex(16), **header})
                connection.execute("INSERT INTO header VALUES (1, ?)", (text,))
        contents = read_contents(connection)
    if not contents.entries:
        write_anchor(path, contents.anchor)


def read(path: Path) -> Contents:
    """What the ledger at `path` holds, unchecked.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    with ledger_errors(path), closing(connect(path, "ro")) as connection:
        return read_contents(connection)


def read_contents(connection: sqlite3.Connection) -> Contents:
    """What an open ledger holds, unchecked."""
    header = connection.execute("SELECT entry FROM header").fetchone()
    if header is None:
        raise sqlite3.DatabaseError("it has no header")
    rows = connection.execute("SELECT entry, hash FROM charges ORDER BY sequence").fetchall()
    # Pages that were overwritten with zeros read as NULL.
    if not all(isinstance(value, str) for row in (header, *rows) for value in row):
        raise sqlite3.DatabaseError("its entries are damaged")
    return Contents(
        header_text=header[0],
        entries=tuple(entry for entry, _ in rows),
        recorded=tuple(recorded for _, recorded in rows),
    )


def check_pages(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError unless the database's pages are sound."""
    if (finding := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(f"its pages are damaged: {' '.join(str(finding).split())}")


def release_digest(release: bytes, teacher: bytes) -> str:
    """Sha256 (hex) over the release, its length first, and the teacher."""
    return hashlib.sha256(len(release).to_bytes(8) + release + teacher).hexdigest()


def verify(path: Path) -> Verification:
    """Check a ledger from end to end: pages, chain, anchor, stored releases. Changes nothing.

    A ledger can only be proved complete against something that was not rewound with it. The anchor
    beside it shows accidents and careless edits; whoever rewinds both is not seen.
    """
    try:
        anchor = read_anchor(path)
        if not path.exists():
            charges = f" of {anchor.count} charges" if anchor else ""
            return _invalid(f"no ledger at {path}, though its anchor{charges} is there", 0)
        with ledger_errors(path), closing(connect(path, "ro")) as connection:
            check_pages(connection)
            contents = read_contents(connection)
            damaged = [
                sequence
                for sequence, release, teacher, sha256 in connection.execute(
                    "SELECT sequence, release, teacher, sha256 FROM releases"
                )
                if release_digest(release, teacher) != sha256
            ]
    except LedgerError as error:
        return _invalid(str(error), 0)
    count = len(contents.entries)
    if fault := check_chain(contents.hashes, contents.recorded, anchor):
        return _invalid(fault, count)
    if damaged:
        return _invalid(f"the stored releases of charges {damaged} were edited", count)
    if anchor is None:
        return Verification(
            valid=True,
            complete=None,
            entries=count,
            message=f"prefix valid, completeness unknown: {anchor_path(path).name} is missing",
        )
    return Verification(
        valid=True,
        complete=True,
        entries=count,
        message=f"valid, and complete as far as {anchor_path(path).name} can tell",
    )


def _invalid(message: str, entries: int) -> Verification:
    return Verification(valid=False, complete=False, entries=entries, message=message)
