"""What a ledger holds, and what is wrong with it, in a sentence that names the entry."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from fedistill.privacy.chain import FORMAT, Anchor, canonical, link, other_format
from fedistill.privacy.charge import Charge, Entry
from fedistill.privacy.ledger_key import Signed, SiteKey, is_signed

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_HEADER = {"format", "id", "population", "adjacency", "unit", "public_key"}


class HeaderFault(ValueError):
    """A header that this version cannot read. `ledger_errors` says which ledger's."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A ledger as it lies on disk: the header's text and signature, and all entries."""

    header_text: str
    header_signature: str
    entries: tuple[Entry, ...]

    @cached_property
    def header(self) -> dict[str, str]:
        """Population, adjacency, unit and public key, the format and the ledger's random id.

        Raises:
            HeaderFault: it is damaged, or of another format.
        """
        return _header(self.header_text)

    @property
    def public_key(self) -> str:
        """The key that must have signed everything, in hex."""
        return self.header["public_key"]

    @property
    def head(self) -> str:
        """Hash of the last entry, or of the header where there is none."""
        return self.hash_of(len(self.entries))

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All charges, oldest first."""
        return tuple(entry.charge for entry in self.entries)

    @property
    def events(self) -> "list[DpEvent]":
        """Everything that was charged, equal events as one composed with itself."""
        from dp_accounting import SelfComposedDpEvent

        counted = ((entry.charge.event, count) for entry, count in self._counted.values())
        return [
            event if count == 1 else SelfComposedDpEvent(event, count) for event, count in counted
        ]

    @cached_property
    def _counted(self) -> dict[str, tuple[Entry, int]]:
        """The first entry of each event, and how many entries have that event."""
        return _count({}, self.entries)

    def hash_of(self, sequence: int) -> str:
        """Hash of an entry; 0 is the header."""
        return self.entries[sequence - 1].hash if sequence else link("", self.header_text)

    def extended(self, entries: Sequence[Entry]) -> Self:
        """These contents with further entries."""
        if not entries:
            return self
        longer = replace(self, entries=(*self.entries, *entries))
        # What a cached property would find, without another look at each entry.
        vars(longer)["_counted"] = _count(self._counted, entries)
        return longer

    def mixed_up(self, declared: Mapping[str, str]) -> str | None:
        """The first field of the header that is not as `declared`, in a sentence, or None."""
        for field, value in declared.items():
            if self.header[field] != value:
                return (
                    f"has {field}={self.header[field]}, not {value}: a ledger never mixes them; "
                    "keep a ledger of its own for each"
                )
        return None

    def fault(
        self, anchor: Anchor | None, *, sound: int = 0, trusted: Anchor | None = None
    ) -> str | None:
        """The first thing that is wrong, in a sentence that names the entry, or None.

        Args:
            anchor: The ledger's anchor, where there is one.
            sound: How many entries were found in order before, and need no second look.
            trusted: An anchor whose signature needs no look: it was made or checked before.
        """
        return next(self._faults(anchor, sound, trusted), None)

    def _faults(self, anchor: Anchor | None, sound: int, trusted: Anchor | None) -> Iterator[str]:
        if not sound and not self._is_signed(self.hash_of(0), self.header_signature):
            yield "entry 0, the header, was edited: the site's key did not sign it"
        previous = self.hash_of(sound)
        for number, entry in enumerate(self.entries[sound:], start=sound + 1):
            if entry.sequence != number:
                yield f"entry {number} is missing: {entry.sequence} follows {number - 1}"
            if link(previous, entry.text) != entry.hash:
                yield f"entry {number} was edited: its hash does not match"
            if not self._is_signed(entry.hash, entry.signature):
                yield f"entry {number} was edited or added: the site's key did not sign it"
            if canonical(entry.charge.event_json) != entry.event:
                yield f"entry {number} was edited: its column event is not its text's event"
            previous = entry.hash
        if anchor is not None:
            yield from self._anchor_faults(anchor, trusted)

    def _anchor_faults(self, anchor: Anchor, trusted: Anchor | None) -> Iterator[str]:
        if anchor != trusted and not anchor.is_signed:
            yield "its anchor was edited: the key that it names did not sign it"
        count = len(self.entries)
        if anchor.count > count:
            gone = f"entries {count + 1} to {anchor.count} are"
            if anchor.count == count + 1:
                gone = f"entry {anchor.count} is"
            yield (
                f"it is behind its anchor ({count} charges, the anchor saw {anchor.count}): {gone} "
                "missing, it was cut short or replaced by an older copy"
            )
        elif self.hash_of(anchor.count) != anchor.head:
            yield f"entry {anchor.count} is not the one its anchor saw: the ledger was replaced"
        if anchor.public_key != self.public_key:
            yield "its anchor names another public key than entry 0, the header"

    def _is_signed(self, digest: str, signature: str) -> bool:
        return is_signed(self.public_key, Signed.ENTRY, digest, signature)


def read_contents(connection: sqlite3.Connection, known: Contents | None = None) -> Contents:
    """What an open ledger holds, unchecked.

    Args:
        connection: To the ledger.
        known: What it held before, found in order. Where its last entry is still there, only newer
            ones are read.

    Raises:
        HeaderFault: its header is damaged, or of another format.
        sqlite3.DatabaseError: it is no ledger.
    """
    if known is not None and known.entries:
        rows = _entries(connection, len(known.entries))
        if rows[:1] == [known.entries[-1]]:
            return known.extended(rows[1:])
    header = connection.execute("SELECT entry FROM header").fetchone()
    if header is None:
        raise sqlite3.DatabaseError("it has no header")
    _header(_text(header[0]))  # a table of another format has other columns
    (signature,) = connection.execute("SELECT signature FROM header").fetchone()
    return Contents(
        header_text=header[0],
        header_signature=_text(signature),
        entries=tuple(_entries(connection, 1)),
    )


def insert_entry(
    connection: sqlite3.Connection,
    key: SiteKey,
    previous: str,
    sequence: int,
    text: str,
    event: str,
) -> Entry:
    """Write the entry that follows the one with the hash `previous`, signed by the site."""
    digest = link(previous, text)
    entry = Entry(
        sequence=sequence,
        text=text,
        event=event,
        hash=digest,
        signature=key.sign(Signed.ENTRY, digest),
    )
    connection.execute(
        "INSERT INTO charges (sequence, entry, event, hash, signature) VALUES (?, ?, ?, ?, ?)",
        (sequence, text, event, digest, entry.signature),
    )
    return entry


def _entries(connection: sqlite3.Connection, first: int) -> list[Entry]:
    rows = connection.execute(
        "SELECT sequence, entry, event, hash, signature FROM charges WHERE sequence >= ?"
        " ORDER BY sequence",
        (first,),
    )
    return [Entry.row(sequence, *map(_text, texts)) for sequence, *texts in rows.fetchall()]


def _count(
    counted: dict[str, tuple[Entry, int]], entries: Sequence[Entry]
) -> dict[str, tuple[Entry, int]]:
    more = dict(counted)
    for entry in entries:
        first, count = more.get(entry.event, (entry, 0))
        more[entry.event] = first, count + 1
    return more


def _text(value: object) -> str:
    # Pages that were overwritten with zeros read as NULL.
    if not isinstance(value, str):
        raise sqlite3.DatabaseError("its entries are damaged")
    return value


def _header(text: str) -> dict[str, str]:
    try:
        header: dict[str, str] = json.loads(text)
        found, missing = header["format"], _HEADER - set(header)
    except (ValueError, TypeError, KeyError) as error:
        raise HeaderFault("its header is damaged: verify the ledger") from error
    if found != FORMAT:
        raise HeaderFault(f"it {other_format(found)}")
    if missing:
        raise HeaderFault(f"its header lacks {', '.join(sorted(missing))}: it was edited")
    return header
