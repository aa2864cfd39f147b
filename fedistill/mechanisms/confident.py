"""Confident-GNMax for `sharded`: only proxy rows on which the teachers agree are answered.

Papernot et al. 2018, "Scalable Private Learning with PATE", Algorithm 1. Each of k teachers has one
vote on each of N proxy rows. A row is answered if its largest count of votes, noised, reaches a
public threshold; after A answers it stops. What is given of an answered row is all its counts,
noised, of which the paper's class is the largest.

Adjacency: as in `sharded`, add or remove or replace one: one teacher's votes change.

Sensitivity: a teacher has at most one vote a row. So a row's largest count moves by at most 1, the
N largest counts by at most sqrt(N) in L2, and the counts of at most A answered rows by at most
sqrt(2 A): a vote leaves one class and enters another.

Output law: N largest counts plus independent discrete Gaussians of scale s1, then the counts of the
chosen rows plus fresh ones of scale s2. Which rows are chosen (the mask) is a function of the first
release, so the second is chosen adaptively, and zCDP adds up (Bun and Steinke 2016, Lemma 2.3):

    rho = N / (2 s1^2) + A / s2^2,   which is N a / (2 s1^2) + A a / s2^2 of Renyi order a.

The charge depends on no data. All N checks are charged, whether A was reached before or not, and A
answers, whether so many were given or not: it is fixed before any row is read. Of an unanswered row
no count leaves, only what the checks say; the mask may be published. The paper's own, smaller
figures depend on the votes: they are no guarantee until they are themselves released privately.

Never under noise that is shared among sites: each site answers other rows, so its counts are no
terms of one sum, and its own noise alone must pay for its own checks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from dp_accounting import ComposedDpEvent, ZCDpEvent

from fedistill.errors import PolicyRefusal
from fedistill.labels import LabelQuestion
from fedistill.mechanisms.shard_answers import Integers
from fedistill.privacy.discrete_gaussian import add_noise, scale_for_squared

CHECK_SHARE = 0.2
"""Share of rho that pays for the checks: they choose rows, and only the answers teach."""

_BITS = 48
MASK = tuple(f"mask-{word:02d}" for word in range(20))
"""Names under which a release states its mask, `_BITS` rows each: a float holds that exactly."""

MOST_CHECKS = _BITS * len(MASK)
"""Most rows that may be checked; the noise of a check grows with their square root anyway."""


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """When a row is answered and with what noise; a function of public values.

    Attributes:
        num_queries: Rows that are checked; N.
        votes_at_least: Noised votes for one class that get a row answered.
        answers_at_most: Rows that are answered before it stops; A.
        check_scale: Of the noise in the largest count of a row, in votes; s1.
        vote_scale: Of the noise in each count of an answered row, in votes; s2.
    """

    num_queries: int
    votes_at_least: int
    answers_at_most: int
    check_scale: float
    vote_scale: float

    @property
    def event(self) -> ComposedDpEvent:
        """The cost of all checks and of as many answers as may be given."""
        checks = ZCDpEvent(rho=0.5 * self.num_queries / self.check_scale**2)
        answers = ZCDpEvent(rho=self.answers_at_most / self.vote_scale**2)
        return ComposedDpEvent([checks, answers])


def confidence_for(question: LabelQuestion, num_queries: int, rho: float) -> Confidence:
    """Scales of both noises, for at most `rho` of zCDP.

    Raises:
        PolicyRefusal: The threshold is no share of the teachers, no row may be answered, or too
            many are to be checked.
    """
    if question.queries > MOST_CHECKS:
        raise PolicyRefusal(
            f"queries={question.queries} must be at most {MOST_CHECKS} for confident answers: "
            "ask for fewer"
        )
    if question.answers_at_most < 1:
        raise PolicyRefusal(
            f"answers_at_most={question.answers_at_most} must be at least 1: ask for more"
        )
    if not 0 < question.confidence <= 1:
        raise PolicyRefusal(
            f"confidence={question.confidence} must be above 0 and at most 1, a share of the "
            "teachers: ask for such a share"
        )
    most = min(question.answers_at_most, num_queries)
    return Confidence(
        num_queries=num_queries,
        # Rounded first: 0.07 of 100 teachers are 7, though 0.07 * 100 is a little more.
        votes_at_least=math.ceil(round(question.confidence * question.shards, 9)),
        answers_at_most=most,
        check_scale=scale_for_squared(num_queries, CHECK_SHARE * rho),
        vote_scale=scale_for_squared(2 * most, (1 - CHECK_SHARE) * rho),
    )


def answer_confidently(votes: Integers, confidence: Confidence) -> tuple[Integers, Integers]:
    """Which rows are answered, and their noised counts.

    Args:
        votes: (num_queries, num_classes) of the teachers, exact.
        confidence: As planned.

    Returns:
        Indices of the answered rows, ascending, (num_answered,) with num_answered at most
        `answers_at_most`; and their noised counts, (num_answered, num_classes).
    """
    rows = chosen_rows(add_noise(votes.max(axis=1), confidence.check_scale), confidence)
    return rows, add_noise(votes[rows], confidence.vote_scale)


def chosen_rows(noised_largest: Integers, confidence: Confidence) -> Integers:
    """The first rows that pass the check, (num_answered,); post-processing of the noised counts."""
    passed = np.flatnonzero(noised_largest >= confidence.votes_at_least)
    return passed[: confidence.answers_at_most].astype(np.int64)


def state_mask(rows: Integers) -> dict[str, float]:
    """The mask as parameters of a release: in each one plus a bit for each answered row."""
    words = [1] * len(MASK)
    for row in rows.tolist():
        words[row // _BITS] += 1 << (row % _BITS)
    return {name: float(word) for name, word in zip(MASK, words, strict=True)}


def stated_rows(parameters: Mapping[str, float], confidence: Confidence) -> Integers:
    """The answered rows that a release states, whatever it states: (num_answered,) of the checked.

    Args:
        parameters: Of the release; each from 1 to 1e15 (`codec.decode_release`).
        confidence: As planned.
    """
    rows = np.arange(MOST_CHECKS).reshape(len(MASK), _BITS)
    words = np.array([[int(parameters[name]) - 1] for name in MASK])
    stated: Integers = rows[(words >> np.arange(_BITS)) & 1 == 1]
    return stated[stated < confidence.num_queries][: confidence.answers_at_most]
