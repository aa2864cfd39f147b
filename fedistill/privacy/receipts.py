"""Receipts: one line of JSON for everything that left a site, for anyone to check."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedistill.errors import DataError, LedgerError
from fedistill.privacy.accountant import MAX_DELTA
from fedistill.privacy.adjacency import Adjacency, Unit

_SHA256 = r"^[0-9a-f]{64}$"


def utc_now() -> str:
    """The time of a receipt: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str = Field(default_factory=utc_now)
    run: str
    site: str
    population: str
    what: str
    question: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)
    epsilon: float = Field(ge=0, allow_inf_nan=False)
    total_epsilon: float = Field(ge=0, allow_inf_nan=False)
    remaining_epsilon: float = Field(ge=0, allow_inf_nan=False)
    alone_epsilon: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    delta: float = Field(gt=0, le=MAX_DELTA)
    adjacency: Adjacency
    unit: Unit
    cached: bool = False
    sealed: bool = False


def append_receipt(path: Path, receipt: Receipt) -> None:
    """Add `receipt` to the JSON lines at `path`; on disk when this returns.

    One write with O_APPEND, so that processes that share the file do not mix their lines.

    Raises:
        LedgerError: it cannot be written.
    """
    line = receipt.model_dump_json().encode() + b"\n"
    with _receipt_errors(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(file, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(file)
        finally:
            os.close(file)


def read_receipts(path: Path) -> tuple[Receipt, ...]:
    """All receipts at `path`, oldest first.

    Raises:
        DataError: the file cannot be read, or a line of it is not a receipt.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
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
