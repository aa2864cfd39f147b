"""What a ledger stores of an answer, and whether it is what the site stored."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from fedistill.privacy.charge import Charge
from fedistill.privacy.ledger_key import Signed, SiteKey, is_signed

_COLUMNS = "sequence, release, teacher, sha256, releases.signature"


@dataclass(frozen=True, kw_only=True)
class StoredRelease:
    """A noised answer that was paid for: it can be given again at no cost.

    Attributes:
        charge: What it cost.
        release: The release as `Ledger.store` got it.
        teacher: The noised teacher behind it, to label further public rows as post-processing.
    """

    charge: Charge
    release: bytes
    teacher: bytes


def release_digest(release: bytes, teacher: bytes) -> str:
    """Sha256 (hex) over the release, its length first, and the teacher."""
    return hashlib.sha256(len(release).to_bytes(8) + release + teacher).hexdigest()


def sign_release(key: SiteKey, charge_hash: str, digest: str) -> str:
    """Signature (hex) of the release with `digest` as the answer to the charge with that hash."""
    return key.sign(Signed.RELEASE, f"{charge_hash}\n{digest}")


@dataclass(frozen=True, kw_only=True)
class StoredRow:
    """A row of the ledger's table of releases, unchecked; `sequence` is its charge's."""

    sequence: int
    release: bytes
    teacher: bytes
    sha256: str
    signature: str

    @classmethod
    def row(cls, *values: Any) -> Self:
        """One of a row's values, in the order of the attributes."""
        return cls(**dict(zip(cls.__dataclass_fields__, values, strict=True)))

    def is_sound(self, public_key: str, charge_hash: str) -> bool:
        """Whether it is what the site stored for the charge with that hash."""
        return release_digest(self.release, self.teacher) == self.sha256 and is_signed(
            public_key, Signed.RELEASE, f"{charge_hash}\n{self.sha256}", self.signature
        )


def find_release(connection: sqlite3.Connection, question: str) -> StoredRow | None:
    """The latest stored answer to `question`, or None."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM charges JOIN releases USING (sequence)"  # noqa: S608
        " WHERE question = ? ORDER BY sequence DESC LIMIT 1",
        (question,),
    ).fetchone()
    return None if row is None else StoredRow.row(*row)


def all_releases(connection: sqlite3.Connection) -> Iterator[StoredRow]:
    """All stored answers in the order of their charges."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM releases ORDER BY sequence")  # noqa: S608
    return (StoredRow.row(*row) for row in rows)
