"""Receipts: one line of JSON for everything that left a site, for anyone to check.

Each is signed by the site, names the one before it by its hash, and names the ledger's head. Of a
receipt only its `Statement` leaves the site, for the server to countersign.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedistill.errors import DataError, LedgerError
from fedistill.privacy.accountant import MAX_DELTA
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.chain import canonical
from fedistill.privacy.countersign import (
    SHA256,
    SIGNATURE,
    Statement,
    append_lines,
    whole_lines,
)
from fedistill.privacy.ledger_disk import locked_directory
from fedistill.privacy.ledger_key import Signed, SiteKey


def utc_now() -> str:
    """The time of a receipt: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class SiteSignature(BaseModel):
    """What binds a receipt to the one before it, to the ledger and to the site.

    Attributes:
        number: Of the receipt in its file, from 1, counting the site's own.
        previous: Hash (hex) of the receipt before it; "" for the first.
        charges: Charges in the ledger.
        head: Hash (hex) of the last of them.
        blind: A random number (hex): whoever sees the receipt's hash cannot try what it says.
        public_key: The site's, in hex.
        signature: The site's, in hex, of the receipt's `Statement`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    previous: str = Field(pattern=rf"{SHA256}|^$")
    charges: int = Field(ge=0)
    head: str = Field(pattern=SHA256)
    blind: str = Field(pattern=r"^[0-9a-f]{32}$")
    public_key: str = Field(pattern=SHA256)
    signature: str = Field(default="", pattern=rf"{SIGNATURE}|^$")


class Receipt(BaseModel):
    """What left, how large it was, what it cost and what remains.

    Attributes:
        time: When, UTC, ISO 8601.
        run: The run that asked.
        site: The site that answered.
        population: Whose data it is about.
        what: The release in words, such as `dp-probe labels`.
        question: Key of the question, as in the ledger.
        bytes: Size of the encoded release.
        sha256: Sha256 (hex) of the encoded release, the bytes that left.
        epsilon: What this release was charged; 0 when it was cached.
        total_epsilon: Epsilon of all that the population ever spent, with this.
        alone_epsilon: The same if all other sites pool what they know: more where sites share their
            noise. None: no finite bound.
        remaining_epsilon: What its budget still holds.
        delta: The delta of the three.
        adjacency: What they hide.
        unit: Whose presence they hide.
        cached: An earlier answer was given again, at no cost.
        sealed: It left under masks, so that the server sees sums over sites only.
        signed: The site's signature; None before `sign_receipt`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str = Field(default_factory=utc_now)
    run: str
    site: str
    population: str
    what: str
    question: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=SHA256)
    epsilon: float = Field(ge=0, allow_inf_nan=False)
    total_epsilon: float = Field(ge=0, allow_inf_nan=False)
    remaining_epsilon: float = Field(ge=0, allow_inf_nan=False)
    alone_epsilon: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    delta: float = Field(gt=0, le=MAX_DELTA)
    adjacency: Adjacency
    unit: Unit
    cached: bool = False
    sealed: bool = False
    signed: SiteSignature | None = None

    @property
    def digest(self) -> str:
        """Hash (hex) of all that it says but the signature."""
        said = self.model_dump(mode="json", exclude={"signed": {"signature"}})
        return hashlib.sha256(canonical(said).encode()).hexdigest()

    @property
    def statement(self) -> Statement:
        """What of a signed receipt leaves the site.

        Raises:
            DataError: nobody signed it.
        """
        if self.signed is None:
            raise DataError(f"the receipt of {self.time} is not signed: an older version wrote it")
        return Statement(
            **self.model_dump(include={"site", "run", "question", "sha256", "bytes"}),
            **self.signed.model_dump(exclude={"blind"}),
            receipt=self.digest,
        )

    def signed_by(
        self, key: SiteKey, *, charges: int, head: str, previous: "Receipt | None" = None
    ) -> Self:
        """The receipt with the site's signature; `previous` is the site's last signed one."""
        unsigned = SiteSignature(
            number=1 if previous is None else previous.statement.number + 1,
            previous="" if previous is None else previous.digest,
            charges=charges,
            head=head,
            blind=secrets.token_hex(16),
            public_key=key.public,
        )
        said = self.model_copy(update={"signed": unsigned})
        signature = key.sign(Signed.RECEIPT, said.statement.text)
        return said.model_copy(
            update={"signed": unsigned.model_copy(update={"signature": signature})}
        )


def append_receipt(path: Path, receipt: Receipt) -> None:
    """Add `receipt` to the JSON lines at `path`; on disk when this returns.

    One write with O_APPEND, so that processes that share the file do not mix their lines.

    Raises:
        LedgerError: it cannot be written.
    """
    with _receipt_errors(path):
        append_lines(path, receipt.model_dump_json().encode() + b"\n")


def sign_receipt(
    path: Path, receipt: Receipt, key: SiteKey, *, charges: int, head: str
) -> Statement:
    """Sign `receipt`, add it to the JSON lines at `path`, and give what of it leaves the site.

    Args:
        path: Receipts, of other sites too where a simulation keeps all of them in one file.
        receipt: Unsigned.
        key: The site's.
        charges: Charges in the ledger.
        head: Hash (hex) of the last of them.

    Raises:
        LedgerError: it cannot be written, or what is at `path` is damaged.
    """
    with _receipt_errors(path), locked_directory(path.parent):
        previous = last_receipt(path, key.public)
        signed = receipt.signed_by(key, charges=charges, head=head, previous=previous)
        append_receipt(path, signed)
    return signed.statement


def last_receipt(path: Path, public_key: str) -> Receipt | None:
    """The newest receipt at `path` that names this site's key; None where there is none.

    Raises:
        LedgerError: what is at `path` is damaged.
    """
    if not path.exists():
        return None
    try:
        receipts = read_receipts(path)
    except DataError as error:
        raise LedgerError(f"{error}; nothing was released: restore the file") from error
    for receipt in reversed(receipts):
        if receipt.signed is not None and receipt.signed.public_key == public_key:
            return receipt
    return None


def read_receipts(path: Path) -> tuple[Receipt, ...]:
    """All receipts at `path`, oldest first, their signatures unchecked.

    Raises:
        DataError: the file cannot be read, or a line of it is not a receipt.
    """
    try:
        lines = whole_lines(path.read_bytes()).splitlines()
    except OSError as error:
        raise DataError(f"receipts {path} cannot be read: {error}") from error
    receipts = []
    for number, line in enumerate(lines, start=1):
        try:
            receipts.append(Receipt.model_validate_json(line))
        except ValidationError as error:
            raise DataError(
                f"receipts {path}, line {number} is not a receipt: {error.errors()[0]['msg']}"
            ) from error
    return tuple(receipts)


@contextmanager
def _receipt_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"receipts {path} cannot be written ({error.strerror or error}); nothing was released: "
            "check the disk and the permissions of its directory"
        ) from error
