"""What of a receipt leaves the site, and the server's signature under it.

A `Statement` names the bytes that left by their hash, the ledger's head when they did, and the
receipt by a hash that a random number blinds: what the site spent is not in it, and cannot be
guessed from it. Under secure aggregation the bytes are the masked ones. The site signs it; the
server checks it against what it took, signs it too, and keeps it. The head then lies outside the
site: a ledger that was rewound together with its anchor no longer holds it (PRIVACY rule 12).

Neither signature costs budget: nothing here depends on a private row but through bytes that were
charged for and are the server's already.
"""

import builtins
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedistill.errors import DataError, LedgerError
from fedistill.privacy.chain import canonical
from fedistill.privacy.ledger_disk import locked_directory
from fedistill.privacy.ledger_key import Signed, SiteKey, is_signed

SHA256 = r"^[0-9a-f]{64}$"
SIGNATURE = r"^[0-9a-f]{128}$"

SERVER_KEY = "server.key"
"""In the folder of what the server countersigned: its private key."""

SERVER_PUBLIC_KEY = "server.pub"
"""There too: the public half in hex, for sites to pin."""

STATEMENT_BYTES = 1024
"""Of a statement's encoding, whatever its numbers say (PRIVACY rule 4)."""

_LARGEST = 8 * STATEMENT_BYTES
_Parsed = TypeVar("_Parsed", bound=BaseModel)


class Statement(BaseModel):
    """What leaves the site of a receipt.

    Attributes:
        site: Who answered.
        run: Who asked.
        question: Key of the question, as in the ledger.
        sha256: Sha256 (hex) of the bytes that left.
        bytes: How many.
        number: Of the receipt in its file, from 1, counting the site's own.
        previous: `receipt` of the one before it; "" for the first.
        charges: Charges in the ledger.
        head: Hash (hex) of the last of them.
        receipt: Hash (hex) of the whole receipt.
        public_key: The site's, in hex.
        signature: The site's, in hex, of all of the above.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    site: str
    run: str
    question: str = Field(pattern=SHA256)
    sha256: str = Field(pattern=SHA256)
    bytes: int = Field(ge=0)
    number: int = Field(ge=1)
    previous: str = Field(pattern=rf"{SHA256}|^$")
    charges: int = Field(ge=0)
    head: str = Field(pattern=SHA256)
    receipt: str = Field(pattern=SHA256)
    public_key: str = Field(pattern=SHA256)
    signature: str = Field(default="", pattern=rf"{SIGNATURE}|^$")

    @property
    def text(self) -> str:
        """What the site signs."""
        return canonical(self.model_dump(exclude={"signature"}))

    @property
    def is_signed(self) -> bool:
        """Whether the holder of `public_key` signed it."""
        return is_signed(self.public_key, Signed.RECEIPT, self.text, self.signature)

    def to_bytes(self) -> builtins.bytes:
        """Canonical JSON, padded with spaces to `STATEMENT_BYTES`; more for a longer site name."""
        return canonical(self.model_dump()).encode().ljust(STATEMENT_BYTES)

    @classmethod
    def from_bytes(cls, data: builtins.bytes) -> Self:
        """Inverse of `to_bytes`; the signature is unchecked.

        Raises:
            DataError: The bytes are no statement.
        """
        return _parsed(cls, data, "statement")


class Countersigned(BaseModel):
    """A statement that the server took, with its signature.

    Attributes:
        statement: As the site signed it.
        server_key: The server's public key, in hex.
        server_signature: The server's, in hex, of the statement and the site's signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    statement: Statement
    server_key: str = Field(pattern=SHA256)
    server_signature: str = Field(pattern=SIGNATURE)

    @classmethod
    def sign(cls, key: SiteKey, statement: Statement) -> Self:
        """The statement with the server's signature."""
        signature = key.sign(Signed.COUNTERSIGNATURE, _countersigned_text(statement))
        return cls(statement=statement, server_key=key.public, server_signature=signature)

    @property
    def is_signed(self) -> bool:
        """Whether site and server both signed it."""
        text = _countersigned_text(self.statement)
        return self.statement.is_signed and is_signed(
            self.server_key, Signed.COUNTERSIGNATURE, text, self.server_signature
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON in one line, without its end."""
        return canonical(self.model_dump()).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`; the signatures are unchecked.

        Raises:
            DataError: The bytes are none.
        """
        return _parsed(cls, data, "countersigned receipt")


def countersigned_path(receipts: Path) -> Path:
    """Where a site keeps what the server countersigned: beside its receipts."""
    return receipts.with_name(f"{receipts.stem}.countersigned{receipts.suffix}")


def append_countersigned(path: Path, items: Iterable[Countersigned]) -> int:
    """Add those that are not there yet to the JSON lines at `path`; on disk when this returns.

    Returns:
        How many were new.

    Raises:
        LedgerError: It cannot be written, or holds something else.
    """
    try:
        with locked_directory(path.parent):
            known = {item.statement.receipt for item in read_countersigned(path)}
            new = [item for item in items if item.statement.receipt not in known]
            if new:
                append_lines(path, b"".join(item.to_bytes() + b"\n" for item in new))
    except DataError as error:
        raise LedgerError(str(error)) from error
    except OSError as error:
        raise LedgerError(
            f"countersigned receipts {path} cannot be written ({error.strerror or error}): check "
            "the disk and the permissions of its directory"
        ) from error
    return len(new)


def read_countersigned(path: Path) -> tuple[Countersigned, ...]:
    """All that lie at `path`, oldest first, their signatures unchecked; none where it is missing.

    Raises:
        DataError: The file cannot be read, or a line of it is something else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise DataError(f"countersigned receipts {path} cannot be read: {error}") from error
    items = []
    for number, line in enumerate(whole_lines(content).splitlines(), start=1):
        try:
            items.append(Countersigned.from_bytes(line))
        except DataError as error:
            raise DataError(f"countersigned receipts {path}, line {number}: {error}") from error
    return tuple(items)


def whole_lines(content: bytes) -> bytes:
    """`content` without a last line that a crash cut: what it was to say never left."""
    return content[: content.rfind(b"\n") + 1]


def append_lines(path: Path, lines: bytes) -> None:
    """Put `lines` after the last whole line of the file; on disk when this returns.

    Raises:
        OSError: They do not fit; what the disk took of them is no whole line.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(file).st_size
        tail = os.pread(file, min(size, 1 << 16), max(0, size - (1 << 16)))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(file, size - len(tail) + len(whole_lines(tail)))
        if os.write(file, lines) != len(lines):
            raise OSError("the disk is full")
        os.fsync(file)
    finally:
        os.close(file)


def _countersigned_text(statement: Statement) -> str:
    return canonical(statement.model_dump())


def _parsed(kind: type[_Parsed], data: bytes, what: str) -> _Parsed:
    if len(data) > _LARGEST:
        raise DataError(f"a {what} must have at most {_LARGEST:,} bytes, not {len(data):,}")
    try:
        return kind.model_validate(json.loads(data))
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise DataError(f"malformed {what}: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"malformed {what}: {error}") from error
