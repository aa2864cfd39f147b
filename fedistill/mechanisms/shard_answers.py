"""What the teachers of disjoint shards say, as integers of which each teacher moves a bounded part.

A teacher's answers are a function of its own shard and of public rows alone, and an answer that is
no distribution counts as uniform: nothing that a teacher does can break the bound, or be seen to
have failed (PRIVACY rule 3).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fedistill.labels import Floats, LabelQuestion
from fedistill.teachers import TeacherModel, TeachesMany, teacher_named

Integers = npt.NDArray[np.int64]
Shard = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

LARGEST_SUM = 2**16
"""G: the integers of a teacher's answer on one row sum to at most this."""


def sum_of_answers(
    question: LabelQuestion, shards: Sequence[Shard], asked: npt.NDArray[np.float32]
) -> Integers:
    """The sum over all teachers of their soft labels in steps of 1/G, (num_asked, num_classes)."""
    total = np.zeros((len(asked), question.num_classes), np.int64)
    for answer in _answers(question, shards, asked):
        total += on_label_grid(answer, total.shape)
    return total


def sum_of_votes(
    question: LabelQuestion, shards: Sequence[Shard], asked: npt.NDArray[np.float32]
) -> Integers:
    """How many teachers vote for each class, (num_asked, num_classes)."""
    total = np.zeros((len(asked), question.num_classes), np.int64)
    for answer in _answers(question, shards, asked):
        total += votes(on_label_grid(answer, total.shape))
    return total


def on_label_grid(answer: Floats, shape: tuple[int, int]) -> Integers:
    """A teacher's probabilities as integers: non-negative, each row's sum at most G.

    Rounded down. A row that is no distribution becomes the uniform one, so that nothing a teacher
    answers can break the bound.

    Args:
        answer: (num_asked, num_classes) if the teacher keeps its contract.
        shape: What it should be.
    """
    uniform = LARGEST_SUM // shape[1]
    if answer.shape != shape:
        return np.full(shape, uniform, np.int64)
    possible = np.isfinite(answer) & (answer >= 0) & (answer <= 1)
    integers = np.floor(np.where(possible, answer, 0.0) * LARGEST_SUM).astype(np.int64)
    # Floats may sum to a little over one.
    excess = integers.sum(axis=1) - LARGEST_SUM
    near = possible.all(axis=1) & (excess <= np.minimum(shape[1], integers.max(axis=1)))
    row, largest = np.arange(len(integers)), integers.argmax(axis=1)
    integers[row, largest] -= np.maximum(excess, 0) * near
    bounded: Integers = np.where(near[:, None], integers, uniform)
    return bounded


def votes(integers: Integers) -> Integers:
    """One vote a row for its largest entry, (num_asked, num_classes); none where two are equal.

    So a teacher that answers uniform abstains, and favours no class.
    """
    largest = integers == integers.max(axis=1, keepdims=True)
    decided = largest.sum(axis=1, keepdims=True) == 1
    chosen: Integers = (largest & decided).astype(np.int64)
    return chosen


def _answers(
    question: LabelQuestion, shards: Sequence[Shard], asked: npt.NDArray[np.float32]
) -> Iterator[Floats]:
    """Each teacher's answers; of a teacher that fails, none, which counts as uniform."""
    teacher = teacher_named(question.teacher, question.num_classes)
    if isinstance(teacher, TeachesMany):
        for fitted in teacher.fit_many(shards):
            yield fitted.predict_proba(asked)
        return
    for shard in shards:
        yield _answer(teacher, shard, asked)


def _answer(teacher: TeacherModel, shard: Shard, asked: npt.NDArray[np.float32]) -> Floats:
    # Any model may fail on some rows, and that it did must not be seen (PRIVACY rule 3).
    try:
        return np.asarray(teacher.fit(*shard).predict_proba(asked), dtype=np.float64)
    except Exception:
        return np.zeros((0, 0))
