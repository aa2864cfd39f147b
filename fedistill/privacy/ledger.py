"""The ledger: what a site has ever spent on one population, kept so that it cannot be overspent.

    charge = ledger.charge(question, description, event, budget_epsilon=1.0, delta=1e-5)
    release = ...                      # only now may noised labels come into being
    ledger.store(charge, release, teacher)

One ledger is one population under one adjacency and one unit, for life. The charge is on disk
before `charge` returns and is never refunded: whatever dies afterwards can waste budget, not
overspend it.

SQLite runs with a rollback journal (`journal_mode=DELETE`), so that the ledger at rest is one file
that can be copied, and with `synchronous=EXTRA`: FULL does not sync the directory after it removes
the journal, and a power cut could then bring the journal back and undo a charge whose release has
left.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fedistill.errors import BudgetExceeded, LedgerError
from fedistill.privacy import accountant, ledger_file
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.chain import (
    Anchor,
    anchor_path,
    canonical,
    check_chain,
    link,
    read_anchor,
    write_anchor,
)
from fedistill.privacy.charge import Charge
from fedistill.privacy.events import event_to_json
from fedistill.privacy.ledger_file import Contents, Verification, ledger_errors

if TYPE_CHECKING:
    from dp_accounting import DpEvent


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


class Ledger:
    """An open ledger. Made by `Ledger.open`; a context manager. For one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, header: Mapping[str, str]):
        self._path = path
        self._connection = connection
        self._header = header

    @classmethod
    def open(
        cls, path: Path, *, population: str, adjacency: Adjacency, unit: Unit, create: bool
    ) -> Self:
        """Open the ledger of `population`, or start it where `create` allows that.

        Args:
            path: The database file; its anchor lies beside it as `<name>.anchor`.
            population: Whose data this is: the id that the site declares, not a hash of the data.
            adjacency: What the charges guarantee. One ledger holds one adjacency and one unit.
            unit: See `adjacency`.
            create: Start a ledger where neither it nor an anchor of it exists.

        Raises:
            LedgerError: the ledger is missing, belongs to another population, adjacency or unit, is
                behind its anchor, was edited, or cannot be read.
        """
        path = Path(path)
        header = {"population": population, "adjacency": str(adjacency), "unit": str(unit)}
        anchor = read_anchor(path)
        if not path.exists() and (anchor is not None or not create):
            raise _missing(path, anchor)
        with ledger_errors(path):
            if create and anchor is None:
                ledger_file.create(path, header)
            ledger = cls(path, ledger_file.connect(path, "rw"), header)
            try:
                ledger_file.check_pages(ledger._connection)
                ledger._contents()
            except BaseException:
                ledger.close()
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
    ) -> Charge:
        """Pay for a release that does not exist yet; on disk when this returns.

        Args:
            question: Key of the question for `cached`: a hash of all that defines it.
            description: What the charge is for, as JSON: the mechanism, the run, the proxy set.
            event: What the release will cost.
            budget_epsilon: The population's whole budget, at `delta`.
            delta: The delta of budget and charge.

        Raises:
            BudgetExceeded: the event does not fit after all that was ever charged.
            ConfigError: epsilon, delta or the event is out of bounds.
            LedgerError: the ledger is locked, damaged or cannot be written. Nothing may be
                released then, even where the charge did reach the disk.
        """
        asked = event_to_json(event)
        with ledger_errors(self._path):
            with ledger_file.transaction(self._connection):
                contents = self._contents()
                past = [entry.event for entry in contents.charges]
                self._check_budget(past, event, budget_epsilon, delta)
                adjacency = self._adjacency
                text = canonical(
                    {
                        "sequence": len(past) + 1,
                        "time": datetime.now(UTC).isoformat(timespec="seconds"),
                        "question": question,
                        "description": dict(description),
                        "event": asked,
                        "epsilon": accountant.epsilon_of(event, delta, adjacency),
                        "spent_epsilon": accountant.epsilon_of([*past, event], delta, adjacency),
                        "budget_epsilon": budget_epsilon,
                        "delta": delta,
                    }
                )
                charge = Charge.from_entry(text, link(contents.anchor.head, text))
                self._connection.execute(
                    "INSERT INTO charges (sequence, entry, hash) VALUES (?, ?, ?)",
                    (charge.sequence, text, charge.hash),
                )
            write_anchor(self._path, Anchor(count=charge.sequence, head=charge.hash))
        return charge

    def store(self, charge: Charge, release: bytes, teacher: bytes) -> None:
        """Keep the noised release of `charge`, so that `cached` can give it again.

        Raises:
            LedgerError: it has one already, or the ledger cannot be written.
        """
        digest = ledger_file.release_digest(release, teacher)
        with ledger_errors(self._path), ledger_file.transaction(self._connection):
            self._connection.execute(
                "INSERT INTO releases (sequence, release, teacher, sha256) VALUES (?, ?, ?, ?)",
                (charge.sequence, release, teacher, digest),
            )

    def cached(self, question: str) -> StoredRelease | None:
        """The latest stored answer to `question`, or None.

        Raises:
            LedgerError: what is stored is damaged, or the ledger cannot be read.
        """
        with ledger_errors(self._path):
            row = self._connection.execute(
                "SELECT entry, hash, release, teacher, sha256 FROM charges JOIN releases"
                " USING (sequence) WHERE question = ? ORDER BY sequence DESC LIMIT 1",
                (question,),
            ).fetchone()
        if row is None:
            return None
        entry, entry_hash, release, teacher, digest = row
        charge = Charge.from_entry(entry, entry_hash)
        # A damaged index can lead to the answer of another question.
        edited = ledger_file.release_digest(release, teacher) != digest
        if edited or charge.question != question:
            raise LedgerError(
                f"ledger {self._path}: the stored answer to {question[:12]} was edited: restore "
                "the ledger from a backup that is not behind its anchor"
            )
        return StoredRelease(charge=charge, release=release, teacher=teacher)

    def entries(self) -> tuple[Charge, ...]:
        """All charges, oldest first."""
        with ledger_errors(self._path):
            return self._contents().charges

    def spent(self, delta: float) -> float:
        """Epsilon at `delta` of everything that was ever charged."""
        events = [entry.event for entry in self.entries()]
        return accountant.epsilon_of(events, delta, self._adjacency)

    def remaining(self, budget_epsilon: float, delta: float) -> float:
        """`budget_epsilon` less the epsilon spent, at least 0.

        A single zCDP question may cost more than this and still fit, because several releases
        together cost less than the sum of their epsilons: `accountant.largest_epsilon_left`.
        """
        return max(0.0, budget_epsilon - self.spent(delta))

    def verify(self) -> Verification:
        """Check pages, chain, anchor and stored releases: see `ledger_file.verify`."""
        return ledger_file.verify(self._path)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

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

    def _contents(self) -> Contents:
        """The ledger's contents, refused unless they are of this header, chained and anchored."""
        anchor = read_anchor(self._path)
        contents = ledger_file.read_contents(self._connection)
        fault = check_chain(contents.hashes, contents.recorded, anchor)
        if anchor is None:
            fault = "its anchor is missing, so nobody can tell whether charges are missing too"
        if fault:
            raise LedgerError(
                f"ledger {self._path}: {fault}. Restore ledger and anchor from a backup made after "
                "the last charge; without one, this population's spending is unknown"
            )
        for field, value in self._header.items():
            if contents.header[field] != value:
                raise LedgerError(
                    f"ledger {self._path} has {field}={contents.header[field]}, not {value}: a "
                    "ledger never mixes them; keep a ledger of its own for each"
                )
        return contents

    def _check_budget(
        self, past: Sequence["DpEvent"], event: "DpEvent", budget: float, delta: float
    ) -> None:
        adjacency = self._adjacency
        if accountant.within_budget(
            past, event, budget_epsilon=budget, delta=delta, adjacency=adjacency
        ):
            return
        spent = accountant.epsilon_of(past, delta, adjacency)
        asked = accountant.epsilon_of(event, delta, adjacency)
        together = accountant.epsilon_of([*past, event], delta, adjacency)
        left = accountant.largest_epsilon_left(
            past, budget_epsilon=budget, delta=delta, adjacency=adjacency
        )
        raise BudgetExceeded(
            f"population {self._header['population']!r} has spent epsilon={spent:.6g} of a budget "
            f"of {budget:.6g} at delta={delta:g}; the question costs {asked:.6g}, both together "
            f"{together:.6g}. Nothing was charged. {_way_out(left)}, repeat an answered question "
            "(free), or let the site's owner raise the budget"
        )


def _missing(path: Path, anchor: Anchor | None) -> LedgerError:
    if anchor is None:
        return LedgerError(f"no ledger at {path}: check the path, or let its owner create one")
    return LedgerError(
        f"ledger {path} is missing, though its anchor {anchor_path(path).name} saw {anchor.count} "
        "charges: restore it from a backup made after the last one"
    )


def _way_out(left: float) -> str:
    shown = math.floor(left * 1000) / 1000
    if shown <= 0:
        return "No further question fits: wait for a new budget"
    return f"The largest question that still fits has epsilon={shown:g}: ask that"
