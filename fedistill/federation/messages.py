"""What crosses the wire. Of labels, only a `LabelRelease` can be encoded.

Content records by name: `question` and `release` carry labels, `site` names who is meant or who
answers, `status` is "ok" or an error's public class. Sizes depend on public values alone.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from fedistill.codec import decode_release, encode_release
from fedistill.errors import DataError
from fedistill.federation.records import OK as OK
from fedistill.federation.records import release_record
from fedistill.labels import LabelQuestion, LabelRelease

if TYPE_CHECKING:
    from dp_accounting import DpEvent

HELLO = "query.hello"
LABELS = "train.labels"
EVALUATE = "evaluate.labels"

REASONS: Mapping[str, str] = {
    "no-answer": "did not answer",
    "policy": "refused: its policy forbids the question",
    "waiting": "waits for its owner's approval",
    "budget": "refused: its privacy budget does not hold the charge",
    "ledger": "refused: its ledger cannot vouch for the budget",
    "malformed": "sent an answer that is not a label release",
}
"""Public classes of failure, in words."""

_CLAUSE = re.compile("policy:([a-z0-9-]{1,40})")


def is_failure(status: str) -> bool:
    """Whether a site may answer so in place of what it was asked for."""
    return status in REASONS or _CLAUSE.fullmatch(status) is not None


def reason(status: str) -> str:
    """A public class of failure in words, with the clause that a policy named."""
    clause = _CLAUSE.fullmatch(status)
    if clause is None:
        return REASONS[status]
    return f"{REASONS['policy']} (clause {clause[1]})"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A site's answer as it arrived: `release` holds bytes when `status` is "ok"."""

    site: str
    status: str
    release: bytes
    statement: bytes = b""


def read_hello(content: RecordDict) -> dict[str, bytes]:
    """Inverse of `hello_record`; a malformed reply hosts nobody."""
    record = content.config_records.get("hello", ConfigRecord())
    sites, keys = record.get("sites"), record.get("identities")
    if not isinstance(sites, list) or not isinstance(keys, list) or len(sites) != len(keys):
        return {}
    return {
        str(site): bytes(key) for site, key in zip(sites, keys, strict=True) if type(key) is bytes
    }


def read_anchors(content: RecordDict) -> dict[str, bytes]:
    """The anchors in a `hello_record`; b"" for a site without one."""
    record = content.config_records.get("hello", ConfigRecord())
    sites, ends = record.get("sites"), record.get("anchors")
    if not isinstance(sites, list) or not isinstance(ends, list):
        return {}
    return {
        str(site): bytes(end) for site, end in zip(sites, ends, strict=False) if type(end) is bytes
    }


def read_statement(content: RecordDict) -> bytes:
    """The statement beside an answer; b"" where there is none."""
    statement = content.config_records.get("receipt", ConfigRecord()).get("statement")
    return statement if isinstance(statement, bytes) else b""


def question_to_record(site: str, question: LabelQuestion) -> RecordDict:
    """A question to one site."""
    return RecordDict({"question": ConfigRecord({"site": site, **asdict(question)})})


def read_question(content: RecordDict) -> tuple[str, LabelQuestion]:
    """Inverse of `question_to_record`.

    Raises:
        DataError: A field is missing, unknown or of the wrong type.
    """
    record = dict(content.config_records.get("question", ConfigRecord()))
    site = record.pop("site", None)
    if not isinstance(site, str):
        raise DataError(f"malformed question: fields {sorted(record)}")
    return site, LabelQuestion.from_fields(record)


def release_to_record(site: str, release: LabelRelease) -> RecordDict:
    """A site's noised labels."""
    return release_record(site, encode_release(release))


def read_answer(content: RecordDict) -> Answer:
    """An answer as `records` writes it; what cannot be read has the status "malformed"."""
    record = content.config_records.get("release", ConfigRecord())
    site, status, release = (record.get(key) for key in ("site", "status", "release"))
    if not isinstance(site, str) or not (status == OK or is_failure(str(status))):
        return Answer(site=str(site), status="malformed", release=b"")
    if status == OK and not isinstance(release, bytes):
        return Answer(site=site, status="malformed", release=b"")
    return Answer(
        site=site,
        status=str(status),
        release=release if isinstance(release, bytes) else b"",
        statement=read_statement(content),
    )


def read_release(
    answer: Answer,
    *,
    question: LabelQuestion,
    num_rows: int,
    event: "DpEvent",
    parameters: tuple[str, ...],
) -> LabelRelease:
    """The release in an "ok" answer.

    Raises:
        DataError: See `decode_release`.
    """
    return decode_release(
        answer.release,
        question=question,
        num_rows=num_rows,
        event=event,
        parameters=parameters,
    )


def wire_bytes(content: RecordDict) -> int:
    """Bytes of a message's content as Flower serialises it."""
    return int(recorddict_to_proto(content).ByteSize())
