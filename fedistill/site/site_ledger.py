"""Opening the ledger of the population that a site's policy declares."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedistill.errors import DataError, LedgerError
from fedistill.privacy.countersign import Statement, countersigned_path, read_countersigned
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.receipts import last_receipt
from fedistill.site.policy import Policy

if TYPE_CHECKING:
    from fedistill.site.agent import LocalAgent


def open_ledger(policy: Policy, path: Path, *, create: bool, key: Path | None = None) -> Ledger:
    """The ledger of the population that `policy` declares.

    Raises:
        LedgerError: See `Ledger.open`.
    """
    return Ledger.open(
        path,
        population=policy.population,
        adjacency=policy.adjacency,
        unit=policy.unit,
        create=create,
        key=key,
    )


def open_unless_rewound(agent: "LocalAgent") -> Ledger:
    """The agent's ledger, unless it was rewound together with its anchor: receipts remember.

    Raises:
        LedgerError: See `Ledger.open`; or the last receipt, or one that the server countersigned,
            names an entry that is not there.
    """
    ledger = open_ledger(agent.policy, agent.ledger_path, create=agent.new_ledger, key=agent.key)
    try:
        for said in _last_statements(agent.receipts_path, agent.site_key.public):
            if not ledger.holds(said.charges, said.head):
                raise LedgerError(
                    f"ledger {agent.ledger_path} does not hold entry {said.charges}, which "
                    f"receipt {said.number} names: it was replaced by an older copy; restore "
                    "ledger and anchor from a backup made after the last charge"
                )
    except BaseException:
        ledger.close()
        raise
    return ledger


def _last_statements(receipts: Path, public_key: str) -> Iterator[Statement]:
    """Of the site's last receipt, and of the last that the server countersigned."""
    last = last_receipt(receipts, public_key)
    if last is not None:
        yield last.statement
    try:
        kept = [item.statement for item in read_countersigned(countersigned_path(receipts))]
    except DataError as error:
        raise LedgerError(f"{error}: restore the file from a backup") from error
    own = [said for said in kept if said.public_key == public_key]
    if own:
        yield max(own, key=lambda said: said.charges)
