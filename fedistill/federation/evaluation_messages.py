"""What crosses the wire when a student is scored outside a sum: the student, and noised tables.

Of what a site counted, only an `EvaluationRelease` can be encoded: 8 bytes for each entry of its
tables, as many as the number of classes says.
"""

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, RecordDict

from fedistill.codec import encode_evaluation
from fedistill.errors import DataError
from fedistill.federation.messages import question_to_record
from fedistill.federation.records import release_record
from fedistill.labels import EvaluationRelease, LabelQuestion

STUDENT = "evaluate.student"


def student_to_record(site: str, question: LabelQuestion, sent: bytes) -> RecordDict:
    """A question to one site, and the student that it names by its hash."""
    content = question_to_record(site, question)
    content["student"] = ConfigRecord({"file": sent})
    return content


def read_student(content: RecordDict) -> bytes:
    """The student in `student_to_record`.

    Raises:
        DataError: There is none.
    """
    sent = content.config_records.get("student", ConfigRecord()).get("file")
    if not isinstance(sent, bytes):
        raise DataError("malformed question: no student came with it")
    return sent


def release_to_record(site: str, release: EvaluationRelease) -> RecordDict:
    """A site's noised tables; see `encode_evaluation`."""
    return release_record(site, encode_evaluation(release))


def read_counts(counts: bytes, *, length: int, largest: int) -> npt.NDArray[np.int64]:
    """The (length,) int64 counts in a reply, each from -largest to largest.

    Raises:
        DataError: There are more or fewer, or one is larger.
    """
    if len(counts) != 8 * length:
        raise DataError(f"malformed tables: {len(counts)} bytes must be {8 * length}")
    found = np.frombuffer(counts, "<i8").astype(np.int64)
    if (found < -largest).any() or (found > largest).any():
        raise DataError(f"malformed tables: a count must be from {-largest} to {largest}")
    return found
