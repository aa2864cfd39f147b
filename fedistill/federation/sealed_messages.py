"""What crosses the wire in a sealed round: signed keys, encrypted shares, masked vectors.

Of labels, only a `MaskedVector` can be encoded here. Requests carry the parts that `secagg`
makes and checks; a reply is one message of it, or an error's public class. Sizes depend on public
values alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from flwr.app import ConfigRecord, RecordDict

from fedistill.errors import DataError
from fedistill.federation.messages import OK, is_failure, question_to_record, read_question
from fedistill.federation.records import sealed_record
from fedistill.labels import LabelQuestion
from fedistill.secagg import (
    KeyAdvert,
    MaskedVector,
    RevealedShares,
    RoundTerms,
    ShareBundle,
    SurvivorSignature,
)
from fedistill.summands import Place

KEYS = "train.keys"
SHARES = "train.shares"
SEALED = "train.sealed"
AGREE = "train.agree"
UNMASK = "train.unmask"
RECEIPTS = "train.receipts"

Reply = KeyAdvert | ShareBundle | MaskedVector | SurvivorSignature | RevealedShares


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What opens a round at a site: the question, the terms, and the layout of the vectors."""

    site: str
    question: LabelQuestion
    terms: RoundTerms
    stated: tuple[Place, ...]


def invitation_to_record(invitation: Invitation) -> RecordDict:
    """An invitation to one site."""
    content = question_to_record(invitation.site, invitation.question)
    content["round"] = ConfigRecord(
        {
            "terms": invitation.terms.to_text(),
            "stated": [".".join(place) for place in invitation.stated],
        }
    )
    return content


def read_invitation(content: RecordDict) -> Invitation:
    """Inverse of `invitation_to_record`.

    Raises:
        DataError: A field is missing or of the wrong type.
        TermsRefused: The terms promise too little.
    """
    site, question = read_question(content)
    record = content.config_records.get("round", ConfigRecord())
    terms, stated = record.get("terms"), record.get("stated")
    if not isinstance(terms, str) or not isinstance(stated, list):
        raise DataError(f"malformed invitation: fields {sorted(record)}")
    places = []
    for text in stated:
        mechanism, _, name = str(text).partition(".")
        places.append((mechanism, name))
    return Invitation(
        site=site,
        question=question,
        terms=RoundTerms.from_text(terms),
        stated=tuple(places),
    )


def parts_to_record(site: str, parts: Sequence[bytes]) -> RecordDict:
    """What a later step of the round hands to one site."""
    return RecordDict({"step": ConfigRecord({"site": site, "parts": list(parts)})})


def read_parts(content: RecordDict) -> tuple[str, list[bytes]]:
    """Inverse of `parts_to_record`.

    Raises:
        DataError: A field is missing or of the wrong type.
    """
    record = content.config_records.get("step", ConfigRecord())
    site, parts = record.get("site"), record.get("parts")
    fitting = isinstance(parts, list) and all(isinstance(part, bytes) for part in parts)
    if not isinstance(site, str) or not fitting:
        raise DataError(f"malformed step: fields {sorted(record)}")
    return site, list(parts)  # type: ignore[arg-type]


def reply_to_record(site: str, reply: Reply) -> RecordDict:
    """A site's message of a step.

    Raises:
        TypeError: It is none of the protocol's messages: nothing else has an encoding here.
    """
    if type(reply) not in get_args(Reply):
        raise TypeError(f"{type(reply).__name__} is no message of a sealed round")
    return sealed_record(site, reply.to_bytes())


def read_reply(content: RecordDict) -> tuple[str, bytes]:
    """Status and message of a reply; what cannot be read has the status "malformed"."""
    record = content.config_records.get("reply", ConfigRecord())
    status, message = record.get("status"), record.get("message")
    if status == OK and isinstance(message, bytes):
        return OK, message
    return (str(status) if is_failure(str(status)) else "malformed"), b""
