"""One entry of a ledger, as text and as what it says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from fedistill.errors import LedgerError
from fedistill.privacy.events import EventJson, event_from_json

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What an entry of a ledger says.

    Attributes:
        sequence: Its number, from 1.
        time: When it was charged, UTC, ISO 8601.
        question: Key of the question that it pays for.
        description: What it is for.
        event_json: What was charged; `event` is the same for `dp_accounting`.
        alone_json: What it costs if all other sites collude; None where that is the same.
        epsilon: Epsilon of this event alone, at `delta`.
        spent_epsilon: Epsilon of everything charged so far with this, at `delta`.
        budget_epsilon: The whole budget when it was charged, at `delta`.
        delta: See above.
        hash: Hash (hex) of the entry, which includes the hash before it.
        signature: The site's signature (hex) of the hash.
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
    signature: str
    alone_json: EventJson | None = None

    @cached_property
    def event(self) -> "DpEvent":
        """What was charged."""
        return event_from_json(self.event_json)

    @cached_property
    def alone(self) -> "DpEvent":
        """What it costs if all other sites collude."""
        return self.event if self.alone_json is None else event_from_json(self.alone_json)

    @property
    def remaining_epsilon(self) -> float:
        """What the budget still held after this charge, at least 0."""
        return max(0.0, self.budget_epsilon - self.spent_epsilon)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the ledger's table of charges.

    Attributes:
        sequence: Its number, from 1.
        text: Canonical JSON of all that the charge says: what is hashed.
        event: Canonical JSON of its event, for whoever reads the table.
        hash: Hash (hex) of `text` and the hash before it.
        signature: The site's signature (hex) of the hash.
    """

    sequence: int
    text: str
    event: str
    hash: str
    signature: str

    @cached_property
    def charge(self) -> Charge:
        """What it says.

        Raises:
            LedgerError: it is no such text.
        """
        try:
            fields = json.loads(self.text)
            return Charge(
                event_json=fields.pop("event"),
                alone_json=fields.pop("alone", None),
                hash=self.hash,
                signature=self.signature,
                **fields,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LedgerError(
                f"ledger entry {self.sequence} is damaged: verify the ledger"
            ) from error

    @classmethod
    def row(cls, *values: Any) -> Self:
        """An entry of a row's values, in the order of the attributes."""
        return cls(**dict(zip(cls.__dataclass_fields__, values, strict=True)))
