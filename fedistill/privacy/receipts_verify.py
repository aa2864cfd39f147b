"""Whether receipts were forged, edited, cut or swapped: found offline, without anybody's key.

Each receipt must be signed by the site, follow the one before it, and name a head that the ledger
holds. Each countersigned one must be signed by both sides and still be there: what the server
keeps of them lies outside the site, and shows what was rewound together at the site.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedistill.errors import DataError, LedgerError
from fedistill.privacy import ledger_file
from fedistill.privacy.countersign import Countersigned, countersigned_path, read_countersigned
from fedistill.privacy.ledger_contents import Contents
from fedistill.privacy.receipts import Receipt, read_receipts


@dataclass(frozen=True, kw_only=True)
class ReceiptCheck:
    """What `verify_receipts` found.

    Attributes:
        valid: Nothing contradicts the receipts.
        receipts: Those of the ledger's population, oldest first.
        countersigned: Numbers of those that carry the server's signature.
        message: The finding in a sentence.
    """

    valid: bool
    receipts: tuple[Receipt, ...]
    countersigned: frozenset[int]
    message: str


def verify_receipts(
    ledger: Path, receipts: Path, *, server_key: str = "", server_copy: Path | None = None
) -> ReceiptCheck:
    """Check the receipts of a ledger. Changes nothing.

    Args:
        ledger: The ledger; itself checked by `ledger_verify.verify`.
        receipts: Receipts, of other sites too where a simulation keeps all of them in one file.
        server_key: The server's public key (hex), as the policy pins it; "" takes any.
        server_copy: What the server kept of this site, instead of what lies beside the receipts.
    """
    try:
        contents = ledger_file.read(ledger)
        found = tuple(
            receipt
            for receipt in (read_receipts(receipts) if receipts.exists() else ())
            if receipt.population == contents.header["population"]
        )
        kept = read_countersigned(server_copy or countersigned_path(receipts))
        own = [item for item in kept if item.statement.public_key == contents.public_key]
        fault = next(_faults(contents, found, own, server_key), None)
    except (DataError, LedgerError) as error:
        return _invalid(str(error))
    if fault:
        return _invalid(fault, found)
    signed = frozenset(item.statement.number for item in own)
    return ReceiptCheck(
        valid=True, receipts=found, countersigned=signed, message=_in_words(contents, found, signed)
    )


def _faults(
    contents: Contents,
    receipts: Sequence[Receipt],
    countersigned: Iterable[Countersigned],
    server_key: str,
) -> Iterator[str]:
    previous, by_number = "", {}
    for number, receipt in enumerate(receipts, start=1):
        signed = receipt.signed
        if signed is None or signed.public_key != contents.public_key:
            yield f"receipt {number} was added: it does not name the key of the ledger"
            return
        if signed.number != number or signed.previous != previous:
            yield (
                f"receipt {number} is missing or was moved: receipt {signed.number} stands in "
                "its place"
            )
        if not receipt.statement.is_signed:
            yield f"receipt {number} was edited: the site's key did not sign it"
        if not _holds(contents, signed.charges, signed.head):
            yield _not_held(number, signed.charges)
        previous = by_number[number] = receipt.digest
    for item in countersigned:
        number = item.statement.number
        if not item.is_signed:
            yield f"the countersignature of receipt {number} was edited"
        if server_key and item.server_key != server_key:
            yield (
                f"the countersignature of receipt {number} is by the key {item.server_key[:12]}, "
                f"and the policy pins server-key {server_key[:12]}"
            )
        if not _holds(contents, item.statement.charges, item.statement.head):
            yield _not_held(number, item.statement.charges)
        if by_number.get(number) != item.statement.receipt:
            yield f"receipt {number} is missing, or not the one that the server countersigned"


def _holds(contents: Contents, charges: int, head: str) -> bool:
    return charges <= len(contents.entries) and contents.hash_of(charges) == head


def _not_held(number: int, charges: int) -> str:
    return (
        f"entry {charges}, which receipt {number} names, is not in the ledger: the ledger was "
        "replaced by an older copy"
    )


def _in_words(contents: Contents, receipts: Sequence[Receipt], signed: frozenset[int]) -> str:
    words = f"{len(receipts)} receipts valid, {len(signed)} of them countersigned by the server"
    listed = receipts[-1].statement.charges if receipts else 0
    if listed < len(contents.entries):
        words += (
            f"; no receipt is later than entry {listed} of {len(contents.entries)}: a crash "
            "wasted what follows, or receipts were cut that the server did not countersign"
        )
    return words


def _invalid(message: str, receipts: tuple[Receipt, ...] = ()) -> ReceiptCheck:
    return ReceiptCheck(valid=False, receipts=receipts, countersigned=frozenset(), message=message)
