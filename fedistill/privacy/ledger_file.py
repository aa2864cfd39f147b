"""The file of a ledger: its schema, how it is opened and made, and what its errors mean.

At rest a ledger is one file with a rollback journal (`journal_mode=DELETE`), which can be copied
and read where nothing can be written. From the first charge to the close it has a write-ahead log
(`journal_mode=WAL`), which takes one sync a commit; SQLite copies it into the database when it has
grown to 1,000 pages, and at the close. A log that a crash left belongs to the ledger: every reader
counts what was committed to it.

`synchronous=EXTRA` syncs each commit in both modes, and the directory after a journal was removed:
without that a power cut could bring an old log back beside a database that has gone on.
"""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from fedistill.errors import LedgerError
from fedistill.privacy.chain import FORMAT, Anchor, canonical, link
from fedistill.privacy.ledger_anchor import anchor_path, write_anchor
from fedistill.privacy.ledger_contents import Contents, HeaderFault, read_contents
from fedistill.privacy.ledger_disk import locked_directory
from fedistill.privacy.ledger_key import Signed, SiteKey

LOCK_SECONDS = 30.0

# INSERT OR REPLACE deletes rows without firing DELETE triggers, so inserts are guarded too.
_SCHEMA = (
    "CREATE TABLE header (id INTEGER PRIMARY KEY CHECK (id = 1), entry TEXT NOT NULL,"
    " signature TEXT NOT NULL)",
    "CREATE TABLE charges (sequence INTEGER PRIMARY KEY, entry TEXT NOT NULL,"
    " event TEXT NOT NULL CHECK (event = json_extract(entry, '$.event')), hash TEXT NOT NULL,"
    " signature TEXT NOT NULL,"
    " question TEXT GENERATED ALWAYS AS (json_extract(entry, '$.question')) VIRTUAL)",
    "CREATE INDEX charges_question ON charges (question)",
    "CREATE TABLE releases (sequence INTEGER PRIMARY KEY REFERENCES charges (sequence),"
    " release BLOB NOT NULL, teacher BLOB NOT NULL, sha256 TEXT NOT NULL,"
    " signature TEXT NOT NULL)",
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

_NEEDS_A_COPY = ("SQLITE_CANTOPEN", "SQLITE_READONLY_CANTINIT", "SQLITE_READONLY_RECOVERY")
"""How SQLite says that it cannot make the index of a log, or bring it up to date."""


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
    except HeaderFault as error:
        raise LedgerError(f"ledger {path}: {error}") from error
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


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, unless a crash left a journal: SQLite rolls that back.

    A log that lies where nothing can be written is read in a copy of the ledger.
    """
    try:
        return connect(path, "ro")  # its pragmas read the schema
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name in _NEEDS_A_COPY and path.is_file():
            return _connect_to_copy(path)
        if name != "SQLITE_READONLY_ROLLBACK":
            raise
    return connect(path, "rw")


def _connect_to_copy(path: Path) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with TemporaryDirectory() as name:
            for file in (path, log_path(path)):
                if file.exists():
                    shutil.copyfile(file, Path(name) / file.name)
            with closing(connect(Path(name) / path.name, "rw")) as copy:
                copy.backup(memory)
    except BaseException:
        memory.close()
        raise
    return memory


def log_path(path: Path) -> Path:
    """Where SQLite keeps the write-ahead log of an open ledger."""
    return path.with_name(f"{path.name}-wal")


def begin_log(path: Path, connection: sqlite3.Connection) -> None:
    """Have the ledger commit to a write-ahead log, until `end_log`.

    A file system without shared memory keeps the rollback journal: slower, as safe.
    """
    # Two processes that change the mode at once would refuse each other.
    with locked_directory(path.parent):
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        # From its first read on the connection keeps others from ending the log.
        connection.execute("SELECT 1 FROM header").fetchone()


def end_log(path: Path, connection: sqlite3.Connection) -> None:
    """Close the connection; the ledger is one file again, if nobody else has it open.

    Else the last that closes it does this. Where the disk has no room, the log stays, and counts.
    """
    try:
        if has_log(connection):
            with locked_directory(path.parent):
                with suppress(sqlite3.Error):
                    connection.execute("PRAGMA busy_timeout=0")
                    connection.execute("PRAGMA journal_mode=DELETE").fetchone()
                connection.close()  # within the lock: of two that close at once, one is the last
    finally:
        connection.close()


def has_log(connection: sqlite3.Connection) -> bool:
    """Whether the ledger commits to a write-ahead log, as far as this connection knows."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    return bool(mode == "wal")


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


def check_file(path: Path) -> None:
    """Raise an error that `ledger_errors` knows, unless the file is a ledger or still empty."""
    if path.is_dir():
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
    with closing(connect(path, "rw")) as connection:
        check_pages(connection)
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            read_contents(connection)


def create(path: Path, header: Mapping[str, str], key: SiteKey) -> None:
    """Make the ledger and its anchor, or finish what a crash interrupted; else change nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The journal takes its mode from the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(connect(path, "rw")) as connection:
        # Whoever made it just before may be about to begin its log, which waits for no writer.
        with locked_directory(path.parent), transaction(connection):
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA:
                    connection.execute(statement)
                _insert_header(connection, header, key)
        contents = read_contents(connection)
    if not contents.entries and contents.public_key == key.public:
        write_anchor(path, Anchor.sign(key, count=0, head=contents.head))


def _insert_header(connection: sqlite3.Connection, header: Mapping[str, str], key: SiteKey) -> None:
    # Without an id of its own, a new ledger could pass for an emptied old one.
    own = {"format": FORMAT, "id": secrets.token_hex(16), "public_key": key.public}
    text = canonical({**own, **header})
    signature = key.sign(Signed.ENTRY, link("", text))
    connection.execute("INSERT INTO header VALUES (1, ?, ?)", (text, signature))


def read(path: Path) -> Contents:
    """What the ledger at `path` holds, unchecked.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    with ledger_errors(path), closing(connect_to_read(path)) as connection:
        return read_contents(connection)


def check_pages(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError unless the database's pages are sound."""
    # `Contents.fault` holds an edited row against its signature, and names it.
    connection.execute("PRAGMA ignore_check_constraints=ON")
    if (finding := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(f"its pages are damaged: {' '.join(str(finding).split())}")
    connection.execute("PRAGMA ignore_check_constraints=OFF")


def identity(path: Path, anchor: Anchor | None) -> tuple[int, int]:
    """Which file lies at `path`, whatever it holds: a copy put in its place is another one.

    Raises:
        LedgerError: none lies there any more.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise missing(path, anchor) from None
    return found.st_dev, found.st_ino


def missing(path: Path, anchor: Anchor | None) -> LedgerError:
    """The error of a ledger that is not there, though it may have been."""
    if anchor is None:
        return LedgerError(f"no ledger at {path}: check the path, or let its owner create one")
    return LedgerError(
        f"ledger {path} is missing, though its anchor {anchor_path(path).name} saw {anchor.count} "
        "charges: restore it from a backup made after the last one"
    )
