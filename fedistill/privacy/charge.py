"""One entry of a ledger."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fedistill.errors import LedgerError
from fedistill.privacy.events import EventJson, event_from_json

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One entry of a ledger.

    Attributes:
        sequence: Its number, from 1.
        time: When it was charged, UTC, ISO 8601.
        question: Key of the question that it pays for.
        description: What it is for.
        event_json: What was charged; `event` is the same for `dp_accounting`.
        epsilon: Epsilon of this event alone, at `delta`.
        spent_epsilon: Epsilon of everything charged so far with this, at `delta`.
        budget_epsilon: The whole budget when it was charged, at `delta`.
        delta: See above.
        hash: Hash (hex) of the entry, which includes the hash before it.
    """

    sequence: int
    time: str
    question: str
    description: Mapping[str, Any]
    event_json: EventJson
    epsilon: float
    spent_epsilon: float
    budget_epsilon: float
    delta: float
    hash: str

    @property
    def event(self) -> "DpEvent":
        """What was charged."""
        return event_from_json(self.event_json)

    @property
    def remaining_epsilon(self) -> float:
        """What the budget still held after this charge, at least 0."""
        return max(0.0, self.budget_epsilon - self.spent_epsilon)

    @classmethod
    def from_entry(cls, entry: str, entry_hash: str) -> Self:
        """The charge that a ledger holds as the JSON text `entry`.

        Raises:
            LedgerError: it is no such text.
        """
        try:
            fields = json.loads(entry)
            return cls(event_json=fields.pop("event"), hash=entry_hash, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LedgerError(
                f"ledger entry {entry[:40]!r} is damaged: verify the ledger"
            ) from error
