"""Questions that wait for the site's owner, one small file each, in a folder of the site.

An approval is for one question of one run. What identifies the question is all that the owner is
shown; the rounds of a run are one question to them, and each student to be scored is another.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from fedistill.errors import BadInput, DataError, PolicyRefusal, Waiting
from fedistill.labels import EVALUATION, LabelQuestion

log = logging.getLogger("fedistill.site")

MOST_WAITING = 100
"""Undecided questions that are kept; further ones are refused."""


class Decision(StrEnum):
    """What the owner said."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A question of a run, and what its owner said.

    Attributes:
        run: Who asks.
        question: What is asked, without what differs from round to round.
        decision: What the owner said.
        asked: When it first came, ISO 8601 in UTC.
    """

    run: str
    question: LabelQuestion
    decision: Decision
    asked: str

    @property
    def name(self) -> str:
        """Of the entry's file."""
        return f"{self.run}.{self.question.sha256[:16]}.json"

    def to_json(self) -> str:
        """The file's content."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`. Raises ValueError, TypeError, KeyError or DataError."""
        fields = json.loads(text)
        question = LabelQuestion.from_fields(fields.pop("question"))
        return cls(question=question, decision=Decision(fields.pop("decision")), **fields)


@dataclass(frozen=True)
class Approvals:
    """The queue in a folder, which is made when the first question comes."""

    folder: Path

    def require(self, run: str, question: LabelQuestion) -> None:
        """Refuse what the owner has not approved; what is new is put into the queue.

        Raises:
            Waiting: The owner has not decided.
            PolicyRefusal: The owner denied it, or the queue is full.
        """
        asked = self.folder / _entry(run, question).name
        if asked.exists():
            entry = _read(asked)
        else:
            waiting = [entry for entry in self.entries() if entry.decision is Decision.WAITING]
            if len(waiting) >= MOST_WAITING:
                raise PolicyRefusal(f"{len(waiting)} questions wait in {self.folder}: decide first")
            entry = _entry(run, question)
            self._write(entry)
            log.info("run %s waits: fedistill site approve %s, or deny %s", run, run, run)
        if entry.decision is Decision.DENIED:
            raise PolicyRefusal(f"run {run} was denied: fedistill site approve {run} allows it")
        if entry.decision is Decision.WAITING:
            raise Waiting(f"run {run} waits: fedistill site approve {run}, or deny {run}")

    def entries(self) -> tuple[Entry, ...]:
        """All entries, by the time they came.

        Raises:
            PolicyRefusal: A file in the folder is no entry.
        """
        entries = [_read(path) for path in sorted(self.folder.glob("*.json"))]
        return tuple(sorted(entries, key=lambda entry: entry.asked))

    def decide(self, run: str, decision: Decision) -> tuple[Entry, ...]:
        """Write the owner's decision on all questions of a run that came so far.

        Raises:
            BadInput: The run has asked nothing.
        """
        decided = [
            replace(entry, decision=decision) for entry in self.entries() if entry.run == run
        ]
        if not decided:
            runs = ", ".join(sorted({entry.run for entry in self.entries()})) or "none"
            raise BadInput(f"run {run!r} has asked nothing: the runs that have are {runs}")
        for entry in decided:
            self._write(entry)
        return tuple(decided)

    def _write(self, entry: Entry) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / entry.name
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(entry.to_json())
        partial.chmod(0o600)
        partial.replace(path)


def _entry(run: str, question: LabelQuestion) -> Entry:
    student = question.broadcast_sha256 if question.mechanism == EVALUATION else ""
    return Entry(
        run=run,
        question=replace(question, round=1, broadcast_sha256=student, run="", cohort_sha256=""),
        decision=Decision.WAITING,
        asked=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def _read(path: Path) -> Entry:
    try:
        return Entry.from_json(path.read_text())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, DataError) as error:
        raise PolicyRefusal(f"approval {path} cannot be read ({error}): remove it") from error
