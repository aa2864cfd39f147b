"""Federated evaluation by a site's own path: the law of the noise, and what it hides.

The neighbours are as far apart as may be: the record has a vote in every table.
"""

from functools import cache

import numpy as np
import pytest

from fedistill.mechanisms.evaluation import count_tables, noised_tables, plan_evaluation
from fedistill.mechanisms.summed import SumPlan, noised_vectors
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Adjacency
from tests.mechanisms.toy import make_proxy, make_rows
from tests.scored_students import COLUMNS, evaluation_of, even_edges, sent
from tests.statistical.distinguishing import (
    epsilon_from_mu,
    mu_from_shift,
    mu_of_event,
    power_of_shift,
)
from tests.statistical.noise_law import follows, power
from tests.statistical.sampler import Sampler, as_shipped, shrunk, tapped

pytestmark = pytest.mark.statistical

CLASSES = (2, 3)
FALSE_ALARM = 1e-6
"""Of each test, for both numbers of classes together."""

EACH = FALSE_ALARM / len(CLASSES)
POWER = 0.99999
RELEASES = 200
RUNS = 400
EPSILON = 4.0


def answer(num_classes: int):
    weights = np.random.default_rng(3).normal(size=(COLUMNS, num_classes))

    def shares(row: np.ndarray) -> np.ndarray:
        powers = np.exp(row @ weights)
        return powers / powers.sum()

    return shares


@cache
def plan_of(num_classes: int, epsilon: float = 1.0) -> SumPlan:
    asked = evaluation_of(make_proxy(), sent(num_classes), num_classes=num_classes, epsilon=epsilon)
    return plan_evaluation(asked, rows_at_least=20, num_sites=1)


def exact_of(num_rows: int, num_classes: int) -> np.ndarray:
    """Tables without noise of so many of the same rows."""
    rows = make_rows(9, num_classes).take(np.arange(num_rows))
    return count_tables(rows, answer(num_classes), even_edges(num_classes))


def noise_of(num_classes: int, sampler: Sampler, releases: int) -> np.ndarray:
    """The noise of whole releases, by the path that a site takes."""
    rows, plan, edges = make_rows(9, num_classes), plan_of(num_classes), even_edges(num_classes)
    with tapped(sampler):
        found = [noised_tables(rows, answer(num_classes), edges, plan) for _ in range(releases)]
    return (np.array(found) - exact_of(9, num_classes) // plan.vectors[0].divisor).ravel()


@pytest.mark.parametrize("num_classes", CLASSES)
def test_the_tables_have_the_planned_noise(num_classes: int) -> None:
    noise = noise_of(num_classes, as_shipped, RELEASES)
    assert follows(noise, plan_of(num_classes).vectors[0].scale, EACH)


@pytest.mark.parametrize("factor", [0.5, 0.9])
@pytest.mark.parametrize("num_classes", CLASSES)
def test_a_scale_too_small_is_rejected(num_classes: int, factor: float) -> None:
    noise = noise_of(num_classes, shrunk(factor), RELEASES)
    assert power(len(noise), factor, EACH) > POWER
    assert not follows(noise, plan_of(num_classes).vectors[0].scale, EACH)


def found_mu(num_classes: int, sampler: Sampler) -> float:
    """Lower bound on mu of telling whether a record is there, along what it moves."""
    plan = plan_of(num_classes, EPSILON)
    present, absent = exact_of(9, num_classes), exact_of(8, num_classes)
    along = (present - absent).astype(float)
    with tapped(sampler):
        told = [
            np.array([noised_vectors(plan, [side]) @ along for _ in range(RUNS)])
            for side in (present, absent)
        ]
    return mu_from_shift(*told, EACH)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_the_tables_hide_a_record_as_well_as_claimed(num_classes: int) -> None:
    """And the attack does find something."""
    event = plan_of(num_classes, EPSILON).event
    claim, found = mu_of_event(event), found_mu(num_classes, as_shipped)
    assert 0.1 * claim < found <= claim
    assert epsilon_from_mu(found, 1e-5) <= epsilon_of(event, 1e-5, Adjacency.ADD_REMOVE)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_half_the_noise_is_caught(num_classes: int) -> None:
    """The record moves the tables by 98% of what is charged: the rest is the coarser grid's."""
    claim = mu_of_event(plan_of(num_classes, EPSILON).event)
    assert power_of_shift(RUNS, claim=claim, true=2 * 0.98 * claim, alpha=EACH) > POWER
    assert found_mu(num_classes, shrunk(0.5)) > claim
