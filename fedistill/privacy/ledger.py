"""The ledger: what a site has ever spent on one population, kept so that it cannot be overspent.

    charge = ledger.charge(question, description, event, budget_epsilon=1.0, delta=1e-5)
    release = ...                      # only now may noised labels come into being
    ledger.store(charge, release, teacher)

One ledger is one population under one adjacency and one unit, for life. The charge is on disk
before `charge` returns and is never refunded: whatever dies afterwards can waste budget, not
overspend it.

A charge syncs the disk once, when it is committed (`ledger_file`). Its line in the anchor is
written after that and synced before its release is stored: a power cut in between leaves an anchor
behind the ledger, of a charge whose release never left, and the next `open` brings it up to date.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fedistill.errors import LedgerError
from fedistill.privacy import accountant, ledger_file
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.chain import Anchor, canonical
from fedistill.privacy.charge import Charge
from fedistill.privacy.events import event_to_json
from fedistill.privacy.ledger_anchor import (
    add_to_anchor,
    read_anchor,
    settle_anchor,
    sync_anchor,
    write_anchor,
)
from fedistill.privacy.ledger_budget import Alone, check_views, entry_text
from fedistill.privacy.ledger_contents import Contents, insert_entry, read_contents
from fedistill.privacy.ledger_file import ledger_errors
from fedistill.privacy.ledger_key import SiteKey, create_key, key_path, load_key
from fedistill.privacy.ledger_release import (
    StoredRelease,
    find_release,
    release_digest,
    sign_release,
)
from fedistill.privacy.ledger_verify import Verification, verify

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = ["Charge", "Ledger", "StoredRelease"]


class Ledger:
    """An open ledger. Made by `Ledger.open`; a context manager. For one thread."""

    def __init__(
        self,
        path: Path,
        file: tuple[int, int],
        connection: sqlite3.Connection,
        header: Mapping[str, str],
        key: SiteKey,
    ):
        self._path = path
        self._file = file
        self._connection = connection
        self._header = header
        self._key = key
        self._known: Contents | None = None
        self._anchor: Anchor | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        population: str,
        adjacency: Adjacency,
        unit: Unit,
        create: bool,
        key: Path | None = None,
    ) -> Self:
        """Open the ledger of `population`, or start it where `create` allows that.

        Args:
            path: The database file; its anchor lies beside it as `<name>.anchor`.
            population: Whose data this is: the id that the site declares, not a hash of the data.
            adjacency: What the charges guarantee. One ledger holds one adjacency and one unit.
            unit: See `adjacency`.
            create: Start a ledger where neither it nor an anchor of it exists.
            key: File of the site's signing key, which a new ledger is bound to for life. None:
                `ledger_key.key_path`, where a key is made for a new ledger.

        Raises:
            LedgerError: the ledger is missing, belongs to another population, adjacency, unit or
                key, is behind its anchor, was edited, or cannot be read; or the key is missing, or
                open to others than its owner.
        """
        path = Path(path)
        declared = {"population": population, "adjacency": str(adjacency), "unit": str(unit)}
        anchor = read_anchor(path)
        if not path.exists() and (anchor is not None or not create):
            raise ledger_file.missing(path, anchor)
        with ledger_errors(path):
            if path.exists():  # a wrong path is told so, not that it lacks a key
                ledger_file.check_file(path)
            elif key is None:
                create_key(key_path(path))
            signer = load_key(key or key_path(path))
            if create and anchor is None:
                ledger_file.create(path, declared, signer)
            header = {**declared, "public_key": signer.public}
            file = ledger_file.identity(path, anchor)
            ledger = cls(path, file, ledger_file.connect(path, "rw"), header, signer)
            try:
                ledger._bring_anchor_up_to_date()
            except BaseException:
                ledger._connection.close()  # what was refused is left as it is
                raise
        return ledger

    def charge(
        self,
        question: str,
        description: Mapping[str, Any],
        event: "DpEvent",
        *,
        budget_epsilon: float,
        delta: float,
        alone: Alone | None = None,
    ) -> Charge:
        """Pay for a release that does not exist yet; on disk when this returns.

        Args:
            question: Key of the question for `cached`: a hash of all that defines it.
            description: What the charge is for, as JSON: the mechanism, the run, the proxy set.
            event: What the release will cost.
            budget_epsilon: The population's whole budget, at `delta`.
            delta: The delta of budget and charge.
            alone: What the release costs if all other sites collude, and the budget of that.

        Raises:
            BudgetExceeded: the event does not fit after all that was ever charged.
            ConfigError: epsilon, delta or the event is out of bounds.
            LedgerError: the ledger is locked, damaged or cannot be written. Nothing may be
                released then, even where the charge did reach the disk.
        """
        asked = event_to_json(event)
        check = partial(
            check_views,
            self._header["population"],
            event=event,
            budget_epsilon=budget_epsilon,
            delta=delta,
            adjacency=self._adjacency,
            alone=alone,
        )
        with ledger_errors(self._path):
            if not ledger_file.has_log(self._connection):
                check(self._contents())  # a refusal then leaves every byte as it was
                ledger_file.begin_log(self._path, self._connection)
            with ledger_file.transaction(self._connection):
                contents = self._contents()
                check(contents)
                sequence = len(contents.entries) + 1
                text = entry_text(
                    sequence,
                    question,
                    description,
                    event,
                    past=contents.events,
                    budget_epsilon=budget_epsilon,
                    delta=delta,
                    adjacency=self._adjacency,
                    alone=alone,
                )
                entry = insert_entry(
                    self._connection, self._key, contents.head, sequence, text, canonical(asked)
                )
            self._known = contents.extended([entry])
            self._anchor = Anchor.sign(self._key, count=sequence, head=entry.hash)
            add_to_anchor(self._path, self._anchor)
        return entry.charge

    def store(self, charge: Charge, release: bytes, teacher: bytes) -> None:
        """Keep the noised release of `charge`, so that `cached` can give it again.

        Raises:
            LedgerError: it has one already, or the ledger cannot be written.
        """
        digest = release_digest(release, teacher)
        signature = sign_release(self._key, charge.hash, digest)
        with ledger_errors(self._path):
            sync_anchor(self._path)
            if not ledger_file.has_log(self._connection):
                ledger_file.begin_log(self._path, self._connection)
            with ledger_file.transaction(self._connection):
                self._connection.execute(
                    "INSERT INTO releases (sequence, release, teacher, sha256, signature)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (charge.sequence, release, teacher, digest, signature),
                )

    def cached(self, question: str) -> StoredRelease | None:
        """The latest stored answer to `question`, or None.

        Raises:
            LedgerError: what is stored is damaged, or the ledger cannot be read.
        """
        with ledger_errors(self._path):
            row = find_release(self._connection, question)
            if row is None:
                return None
            charge = self._contents().entries[row.sequence - 1].charge
        # A damaged index can lead to the answer of another question.
        if not row.is_sound(self._key.public, charge.hash) or charge.question != question:
            raise LedgerError(
                f"ledger {self._path}: the stored answer to {question[:12]}, entry {row.sequence}, "
                "was edited: restore the ledger from a backup that is not behind its anchor"
            )
        return StoredRelease(charge=charge, release=row.release, teacher=row.teacher)

    def entries(self) -> tuple[Charge, ...]:
        """All charges, oldest first."""
        with ledger_errors(self._path):
            return self._contents().charges

    @property
    def head(self) -> tuple[int, str]:
        """How many charges there are, and the hash (hex) of the last of them."""
        with ledger_errors(self._path):
            contents = self._contents()
        return len(contents.entries), contents.head

    def holds(self, charges: int, head: str) -> bool:
        """Whether the ledger ended with the hash `head` when it had so many charges."""
        with ledger_errors(self._path):
            contents = self._contents()
        return charges <= len(contents.entries) and contents.hash_of(charges) == head

    def spent(self, delta: float) -> float:
        """Epsilon at `delta` of everything that was ever charged."""
        with ledger_errors(self._path):
            events = self._contents().events
        return accountant.epsilon_of(events, delta, self._adjacency)

    def spent_alone(self, delta: float) -> float:
        """The same if all other sites pool what they know."""
        with ledger_errors(self._path):
            events = self._contents().alone_events
        return accountant.epsilon_of(events, delta, self._adjacency)

    def remaining(self, budget_epsilon: float, delta: float) -> float:
        """`budget_epsilon` less the epsilon spent, at least 0.

        A single zCDP question may cost more than this and still fit, because several releases
        together cost less than the sum of their epsilons: `accountant.largest_epsilon_left`.
        """
        return max(0.0, budget_epsilon - self.spent(delta))

    def verify(self) -> Verification:
        """Check all that needs no key: see `ledger_verify.verify`."""
        return verify(self._path)

    def close(self) -> None:
        """Close the database: one file again, its anchor one line, where the disk allows it.

        Where it does not, or another process has the ledger open, log and lines stay, and count.
        """
        with suppress(OSError, LedgerError):
            settle_anchor(self._path)
        with suppress(OSError, sqlite3.Error):
            ledger_file.end_log(self._path, self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _adjacency(self) -> Adjacency:
        return Adjacency(self._header["adjacency"])

    def _bring_anchor_up_to_date(self) -> None:
        """Write the anchor of charges that a crash kept from it."""
        contents = self._contents()
        count = len(contents.entries)
        if self._anchor is not None and self._anchor.count < count:
            # Where nothing can be written, nothing can be charged either, but read.
            with suppress(OSError):
                write_anchor(self._path, Anchor.sign(self._key, count=count, head=contents.head))

    def _contents(self) -> Contents:
        """The ledger's contents, refused unless they are of this header, chained and anchored."""
        anchor = read_anchor(self._path)
        known = self._known
        contents = read_contents(self._connection, known)
        sound = 0
        if known is not None and contents.entries[: len(known.entries)] == known.entries:
            sound = len(known.entries)
        fault = contents.fault(anchor, sound=sound, trusted=self._anchor)
        if ledger_file.identity(self._path, anchor) != self._file:
            fault = "another file was put in its place while it was open"
        if anchor is None:
            fault = "its anchor is missing, so nobody can tell whether charges are missing too"
        if fault:
            raise LedgerError(
                f"ledger {self._path}: {fault}. Restore ledger and anchor from a backup made after "
                "the last charge; without one, this population's spending is unknown"
            )
        if mixed := contents.mixed_up(self._header):
            raise LedgerError(f"ledger {self._path} {mixed}")
        self._known, self._anchor = contents, anchor
        return contents
