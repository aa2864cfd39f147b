"""Rounds of a sum over sites as server and sites take them, for tests of all that may be summed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedistill.data import LabelledRows, ProxySet
from fedistill.labels import LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms import sum_vectors
from fedistill.mechanisms.summed import OpenedSum, SumPlan, nothing_opened, summable

TEACHER = "tests.statistical.worst_cases:Tells"
ASKED: dict[str, dict[str, object]] = {
    "corrections": {"rounds": 3},
    "dp-probe": {"solver": "moment", "probe_steps": 0},
    "votes": {"cells": 10, "partitions": 2},
    "sharded": {"shards": 3, "queries": 30, "teacher": TEACHER},
    "clipped": {"clip_norm": 20.0, "teacher": TEACHER},
    "clipped-site": {"clip_norm": 20.0, "teacher": TEACHER},
}
"""What of each question differs from the toy's."""

every_summable = pytest.mark.parametrize("name", ASKED)


@dataclass(frozen=True, kw_only=True)
class Summed:
    """A whole sum: the plan of each round, the last state, and what it answers."""

    plans: tuple[SumPlan, ...]
    state: OpenedSum
    release: LabelRelease
    response: LinearResponse


def shared(question: LabelQuestion, honest: int) -> LabelQuestion:
    """The same question with noise that so many sites share."""
    return replace(question, trust="secagg", min_honest_sites=honest)


def sum_over(
    sites: Sequence[LabelledRows],
    proxy: ProxySet,
    question: LabelQuestion,
    *,
    gone: Callable[[int], int] = lambda number: 0,
) -> Summed:
    """All rounds; in round r the last `gone(r)` sites are missing."""
    mechanism, state = summable(question.mechanism), nothing_opened(question, proxy)
    plans = []
    for number in range(1, question.rounds + 1):
        plan = mechanism.plan_sum(
            replace(question, round=number), proxy, rows_at_least=1, num_sites=len(sites)
        )
        left = sites[: len(sites) - gone(number)]
        sent = [mechanism.noised_integers(rows, proxy, plan, state.weights) for rows in left]
        state = mechanism.open_sum(
            np.sum(sent, axis=0), proxy, plan, num_sites=len(left), before=state
        )
        plans.append(plan)
    release, response = mechanism.answer_sum(state, proxy, plans[-1])
    return Summed(plans=tuple(plans), state=state, release=release, response=response)


def exact_integers(
    rows: LabelledRows, proxy: ProxySet, plan: SumPlan, weights: np.ndarray
) -> list[np.ndarray]:
    """What a site would send of each vector without noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sum_vectors, "add_noise", lambda sums, scale: sums)
        sent = summable(plan.question.mechanism).noised_integers(rows, proxy, plan, weights)
    return np.split(sent, np.cumsum([vector.entries for vector in plan.vectors])[:-1])
