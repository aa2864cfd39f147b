"""The server's signature under every receipt it took, and what it remembers of each ledger.

A site's answer comes with the statement of its receipt. The server checks it against the bytes
that it took, countersigns it, and keeps it in a folder that outlives the run. At the next `hello`
a ledger that ends before what was countersigned is named, and the run goes on without that site.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fedistill.errors import DataError, LedgerError, RunFailed
from fedistill.evaluate.files import write_atomically
from fedistill.federation import sealed_messages
from fedistill.federation.asking import Roster, exchange
from fedistill.federation.messages import OK, reason
from fedistill.labels import LabelQuestion
from fedistill.privacy.countersign import (
    SERVER_KEY,
    SERVER_PUBLIC_KEY,
    Countersigned,
    Statement,
    append_countersigned,
    read_countersigned,
)
from fedistill.privacy.ledger_anchor import anchor_from_bytes
from fedistill.privacy.ledger_key import SiteKey, create_key, load_key
from fedistill.privacy.receipts import read_receipts

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run

PHASE = "receipts"
MOST_SENT = 64
"""Countersigned receipts that a site is sent at the end of a run: it keeps what it lacks."""


@dataclass(frozen=True)
class Countersigner:
    """The server's key, and the folder of what it countersigned."""

    folder: Path
    key: SiteKey

    @classmethod
    def open(cls, folder: Path) -> "Countersigner":
        """The one in `folder`, where a key is made if there is none.

        Raises:
            RunFailed: The folder or the key cannot be used.
        """
        try:
            (folder / "countersigned").mkdir(mode=0o700, parents=True, exist_ok=True)
            create_key(folder / SERVER_KEY)
            key = load_key(folder / SERVER_KEY)
            write_atomically(folder / SERVER_PUBLIC_KEY, f"{key.public}\n")
            return cls(folder, key)
        except (OSError, LedgerError) as error:
            raise RunFailed(f"countersign-dir={str(folder)!r} cannot be used: {error}") from error

    def path(self, site: str) -> Path:
        """What was countersigned of a site, one JSON line each."""
        # A name in a deployment is anything that its coordinator wrote.
        return self.folder / "countersigned" / f"{quote(site, safe='')}.jsonl"

    def of(self, site: str) -> tuple[Countersigned, ...]:
        """What was countersigned of a site, oldest first.

        Raises:
            RunFailed: The file is damaged.
        """
        try:
            return read_countersigned(self.path(site))
        except DataError as error:
            raise RunFailed(f"{error}: restore it from a backup") from error

    def rewound(self, site: str, identity: bytes, anchor: bytes) -> str | None:
        """How a site's ledger contradicts what was countersigned, in a sentence, or None.

        Args:
            site: Its name.
            identity: Its raw public key; b"" where it is not known yet.
            anchor: As the site sent it.
        """
        known = self.of(site)
        if not known:
            return None
        last = max(known, key=lambda item: item.statement.charges).statement
        end = anchor_from_bytes(anchor)
        if end is None or end.public_key != (identity.hex() or last.public_key):
            return f"shows no ledger, and entry {last.charges} of it was countersigned"
        if end.public_key != last.public_key:
            return f"has another key than the one that signed entry {last.charges}"
        if end.count < last.charges or (end.count == last.charges and end.head != last.head):
            return (
                f"has a ledger that ends at entry {end.count} and does not hold entry "
                f"{last.charges}, which was countersigned: it was replaced by an older copy"
            )
        return None

    def take(
        self, site: str, question: LabelQuestion, identity: bytes, sent: bytes, statement: bytes
    ) -> str | None:
        """Countersign the receipt of an answer; or say why not, in a sentence.

        Args:
            site: Who answered.
            question: What it was asked.
            identity: Its raw public key; b"" where it is not known yet.
            sent: The answer, as it was taken.
            statement: What came beside it.

        Raises:
            RunFailed: What was countersigned cannot be kept.
        """
        try:
            said = Statement.from_bytes(statement)
        except DataError as error:
            return str(error)
        known = self.of(site)
        key = identity.hex() or (known[-1].statement.public_key if known else said.public_key)
        if said.public_key != key or not said.is_signed:
            return f"receipt {said.number} is not signed by its key"
        if (said.site, said.question) != (site, question.sha256):
            return f"receipt {said.number} is of another site or question"
        if (said.sha256, said.bytes) != (hashlib.sha256(sent).hexdigest(), len(sent)):
            return f"receipt {said.number} is of other bytes than those that came"
        if any(item.statement.receipt == said.receipt for item in known):
            return f"receipt {said.number} came before: it was replayed"
        try:
            append_countersigned(self.path(site), [Countersigned.sign(self.key, said)])
        except LedgerError as error:
            raise RunFailed(str(error)) from error
        return None


def take_receipt(
    this: "Run", site: str, question: LabelQuestion, identity: bytes, sent: bytes, statement: bytes
) -> None:
    """Countersign what came with a good answer; warn where that cannot be."""
    if why := this.countersigner.take(site, question, identity, sent, statement):
        this.warn(f"{site} sent an answer without a good receipt: {why}: not countersigned")


def without_rewound(this: "Run", roster: Roster) -> tuple[Roster, dict[str, str]]:
    """The sites whose ledgers hold what was countersigned, and of the others why not."""
    found = {
        site: this.countersigner.rewound(
            site, roster.identities.get(site, b""), roster.anchors.get(site, b"")
        )
        for site in roster.nodes
    }
    rewound = {site: why for site, why in found.items() if why is not None}
    return roster.only(set(roster.nodes) - set(rewound)), rewound


def return_receipts(this: "Run", roster: Roster) -> None:
    """Send each site what was countersigned; one that is gone gets it after its next run."""
    with this.phase(PHASE):
        kept = {site: _to_send(this, site) for site in roster.nodes}
        contents = {
            site: sealed_messages.parts_to_record(site, [item.to_bytes() for item in items])
            for site, items in kept.items()
            if items
        }
        replies = exchange(
            this.grid,
            roster,
            sealed_messages.RECEIPTS,
            contents,
            timeout=this.config.phase_timeout,
            up=this.wire.up,
            down=this.wire.down,
            on_progress=partial(this.progress.step, PHASE),
        )
        for site in contents:
            status = "no-answer"
            if site in replies:
                status, _ = sealed_messages.read_reply(replies[site])
            if status != OK:
                this.warn(f"{site} {reason(status)} in phase {PHASE}: it lacks countersignatures")


def _to_send(this: "Run", site: str) -> tuple[Countersigned, ...]:
    items = this.countersigner.of(site)[-MOST_SENT:]
    if this.simulation is None or not this.folder.receipts.exists():
        return items
    # Each run of a simulation has receipts of its own.
    listed = {receipt.digest for receipt in read_receipts(this.folder.receipts)}
    return tuple(item for item in items if item.statement.receipt in listed)
