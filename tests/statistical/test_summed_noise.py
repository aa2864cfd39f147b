"""Sums over sites, by each mechanism's own path: the law of the summed noise, and what it hides.

Three sites are summed. The attacker of the second half is the server together with one of them: it
subtracts what that one sent, and sees the sum of the two that are honest.
"""

import numpy as np
import pytest

from fedistill.data import LabelledRows
from fedistill.mechanisms.summed import SumPlan, noised_vectors, nothing_opened, summable
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Adjacency
from tests.mechanisms.summing import ASKED, every_summable, exact_integers, shared
from tests.mechanisms.toy import ask, make_rows, without_rows
from tests.statistical.distinguishing import (
    epsilon_from_mu,
    mu_from_threshold,
    mu_of_event,
    power_of_threshold,
)
from tests.statistical.noise_law import follows, power
from tests.statistical.sampler import Sampler, as_shipped, shrunk, tapped
from tests.statistical.worst_cases import SMALL_PROXY, secret_and_others

pytestmark = pytest.mark.statistical

FALSE_ALARM = 1e-6
"""Of each test, for all mechanisms and vectors together."""

POWER = 0.99999
SUMS = 400
MOST_VECTORS = 2
PER_VECTOR = FALSE_ALARM / len(ASKED) / MOST_VECTORS

EPSILON = 10.0
"""Large, so that few sums tell."""

RUNS = 420
ALPHA = FALSE_ALARM / len(ASKED)


def plan_of(name: str, epsilon: float, num_classes: int = 2) -> SumPlan:
    """Of a first round; one shard, so that chance does not decide which teacher sees a record."""
    asked = {"epsilon": epsilon, "num_classes": num_classes, **ASKED[name]}
    changes = {"sharded": {"shards": 1, "queries": 12}, "corrections": {"rounds": 1}}.get(name, {})
    question = shared(ask(SMALL_PROXY, name, **asked | changes), 2)
    return summable(name).plan_sum(question, SMALL_PROXY, rows_at_least=1, num_sites=3)


def sent(plan: SumPlan, sites: list[LabelledRows]) -> np.ndarray:
    """The sum of what these sites send, by the mechanism's own path."""
    mechanism = summable(plan.question.mechanism)
    weights = nothing_opened(plan.question, SMALL_PROXY).weights
    parts = [mechanism.noised_integers(rows, SMALL_PROXY, plan, weights) for rows in sites]
    return np.sum(parts, axis=0)


def exact_sums(plan: SumPlan, rows: LabelledRows) -> list[np.ndarray]:
    """What a site's vectors are before the noise, divided as they are."""
    weights = nothing_opened(plan.question, SMALL_PROXY).weights
    return exact_integers(rows, SMALL_PROXY, plan, weights)


def noised_again(plan: SumPlan, exact: list[np.ndarray], sampler: Sampler) -> np.ndarray:
    """What a site of these exact sums sends; quick, for they are not summed again."""
    whole = [each * vector.divisor for each, vector in zip(exact, plan.vectors, strict=True)]
    with tapped(sampler):
        return noised_vectors(plan, whole)


def by_vector(plan: SumPlan, noise: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Of each vector the noise of many sums over three sites, and the scale it should have.

    A sum of discrete Gaussians of scale 4 and more is one of scale sqrt(3) times as much to within
    exp(-100), as far as any test can tell.
    """
    ends = np.cumsum([vector.entries for vector in plan.vectors])[:-1]
    assert all(vector.scale > 4 for vector in plan.vectors)
    assert 1 <= len(plan.vectors) <= MOST_VECTORS
    return [
        (part.ravel(), vector.scale * np.sqrt(3))
        for part, vector in zip(np.split(noise, ends, axis=1), plan.vectors, strict=True)
    ]


@every_summable
def test_the_noise_of_three_sites_adds_up_to_its_law(name: str) -> None:
    """False alarm 1e-6 over all mechanisms and vectors; the next test has the power."""
    plan = plan_of(name, 1.0)
    sites = [make_rows(8, seed=site) for site in range(3)]
    exact = np.sum([np.concatenate(exact_sums(plan, rows)) for rows in sites], axis=0)
    noise = np.stack([sent(plan, sites) - exact for _ in range(SUMS)])
    for found, scale in by_vector(plan, noise):
        assert follows(found, scale, PER_VECTOR)


@every_summable
@pytest.mark.parametrize("factor", [0.5, 0.9])
def test_a_site_scale_too_small_is_rejected(name: str, factor: float) -> None:
    """Power at least 99.999%: half the scale on each vector, 10% less on all but single counts."""
    plan = plan_of(name, 1.0)
    nothing = [np.zeros(vector.entries, np.int64) for vector in plan.vectors]
    noise = np.stack(
        [
            np.sum([noised_again(plan, nothing, shrunk(factor)) for _ in range(3)], axis=0)
            for _ in range(SUMS)
        ]
    )
    for found, scale in by_vector(plan, noise):
        if factor == 0.5 or len(found) > SUMS:
            assert power(len(found), factor, PER_VECTOR) > POWER
            assert not follows(found, scale, PER_VECTOR)


def found_mu(name: str, plan: SumPlan, sampler: Sampler) -> float:
    """Lower bound on mu of telling whether the record is there, from two honest sites' sums.

    By the log-likelihood ratio of the sum over its spread, the best statistic there is: N(+-mu / 2,
    1) where noise is nearly Gaussian.
    """
    present, absent = secret_and_others(plan.question.num_classes)
    if name == "clipped-site":
        absent = without_rows()
    with_record, without, other = (
        exact_sums(plan, rows)
        for rows in (present, absent, make_rows(8, plan.question.num_classes, seed=5))
    )
    scales = np.concatenate([np.full(v.entries, v.scale * np.sqrt(2)) for v in plan.vectors])
    one, two = (np.concatenate(side) + np.concatenate(other) for side in (with_record, without))
    along = (one - two) / scales
    above = [
        sum(
            float(along @ ((noised_sum - (one + two) / 2) / scales)) > 0
            for _ in range(RUNS)
            for noised_sum in [
                noised_again(plan, side, sampler) + noised_again(plan, other, sampler)
            ]
        )
        for side in (with_record, without)
    ]
    return mu_from_threshold(*above, RUNS, ALPHA)


@every_summable
def test_two_honest_sites_together_hide_a_record_as_well_as_claimed(name: str) -> None:
    """False alarm 1e-6 over all mechanisms; and the attack does find something."""
    plan = plan_of(name, EPSILON)
    claim = mu_of_event(plan.event)
    found = found_mu(name, plan, as_shipped)
    assert 0.1 * claim < found <= claim
    delta = plan.question.delta
    spent = epsilon_of(plan.event, delta, Adjacency.ADD_REMOVE)
    assert epsilon_from_mu(found, delta) <= spent


@every_summable
def test_half_the_noise_at_both_is_caught(name: str) -> None:
    """Power at least 99.999%, the two data sets being nine tenths as far apart as they may be."""
    plan = plan_of(name, EPSILON)
    claim = mu_of_event(plan.event)
    assert power_of_threshold(RUNS, claim=claim, true=2 * 0.9 * claim, alpha=ALPHA) > POWER
    assert found_mu(name, plan, shrunk(0.5)) > claim
