"""Ledgers as they lie on disk, read with SQLite alone: an oracle apart from the ledger's code."""

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Account:
    """Of one ledger: how many charges, and the sha256 of every release that can be given again."""

    charges: int
    releases: tuple[str, ...]


def account(path: Path) -> Account:
    """What the ledger at `path` says; an empty account where there is none."""
    if not path.exists():
        return Account(charges=0, releases=())
    with closing(sqlite3.connect(path)) as connection:
        ((charges,),) = connection.execute("SELECT COUNT(*) FROM charges")
        releases = connection.execute(
            "SELECT release FROM releases JOIN charges USING (sequence) ORDER BY sequence"
        )
        digests = tuple(hashlib.sha256(release).hexdigest() for (release,) in releases)
    return Account(charges=charges, releases=digests)


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Every file of such a name below `folder`: two are equal if nothing changed by a byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }
