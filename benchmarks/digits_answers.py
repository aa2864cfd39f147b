"""How the sites of `benchmarks.mnist_pate` answer: by sums, or each by itself.

Where integers are summed, the server sees their sum alone and makes one answer of it. Confident
votes of `sharded` and the networks of `dp-sgd` cannot be summed (`fedistill.mechanisms.summed`), so
such sites answer alone, which needs `trust = "none"`, and answers are weighted by agreement.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.digits import CLASSES
from fedistill.data import LabelledRows, ProxySet
from fedistill.distill.target import build_ensemble
from fedistill.features import proxy_basis
from fedistill.labels import EnsembleTarget, LabelQuestion
from fedistill.mechanisms import mechanism_named
from fedistill.mechanisms.summed import nothing_opened, summable

DELTA = 1e-5
ROWS_AT_LEAST = 10_000
"""What each site declares of itself."""

ALONE = ("sharded", "dp-sgd")
"""Mechanisms whose sites answer alone."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How sites answer, whether their answer is spread over neighbours, and how a student learns.

    `student` names one of `STUDENTS`. `cells` and `partitions` are of `votes`, `shards`, `queries`
    and `answers_at_most` of `sharded`, whose answers are confident.
    """

    mechanism: str
    trust: str
    epsilon: float
    spread: bool
    student: str
    rounds: int = 1
    cells: int = 300
    partitions: int = 1
    shards: int = 1000
    queries: int = 400
    answers_at_most: int = 200


def answer(way: Way, sites: Sequence[LabelledRows], proxy: ProxySet, honest: int) -> EnsembleTarget:
    """The denoised target of all sites' answers, summed where they can be."""
    question = LabelQuestion(
        mechanism=way.mechanism,
        epsilon=way.epsilon,
        delta=DELTA,
        num_classes=CLASSES,
        proxy_sha256=proxy.sha256,
        solver="moment",
        shards=way.shards,
        queries=way.queries,
        answers="confident",
        answers_at_most=way.answers_at_most,
        cells=way.cells,
        partitions=way.partitions,
        trust=way.trust,
        min_honest_sites=honest,
        rounds=way.rounds,
    )
    alone = way.mechanism in ALONE
    return _each_alone(question, sites, proxy) if alone else _summed(question, sites, proxy)


def _each_alone(
    question: LabelQuestion, sites: Sequence[LabelledRows], proxy: ProxySet
) -> EnsembleTarget:
    """The target of one release a site."""
    asked = mechanism_named(question.mechanism)
    plan = asked.plan(question, proxy, rows_at_least=ROWS_AT_LEAST)
    releases = [asked.release(site, proxy, plan)[0] for site in sites]
    responses = [asked.response(question, release, proxy) for release in releases]
    basis = proxy_basis(proxy)
    return build_ensemble(releases, responses, basis, weights="agreement").target


def _summed(
    question: LabelQuestion, sites: Sequence[LabelledRows], proxy: ProxySet
) -> EnsembleTarget:
    """The target of a sum, after all rounds."""
    asked, state = summable(question.mechanism), nothing_opened(question, proxy)
    for number in range(1, question.rounds + 1):
        plan = asked.plan_sum(
            replace(question, round=number),
            proxy,
            rows_at_least=ROWS_AT_LEAST,
            num_sites=len(sites),
        )
        sent = [asked.noised_integers(site, proxy, plan, state.weights) for site in sites]
        total = np.sum(sent, axis=0)
        state = asked.open_sum(total, proxy, plan, num_sites=len(sites), before=state)
    release, response = asked.answer_sum(state, proxy, plan)
    return build_ensemble([release], [response], proxy_basis(proxy)).target
