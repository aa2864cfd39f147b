"""A distinguishing test for each mechanism: attack real releases, compare with the claim.

Two attacks. One sees the noised integers and takes their likelihood ratio; the other
sees what leaves the site, codes and parameters, and learns a direction from releases of its own.
Both tell "present" from "absent" by a threshold that was fixed beforehand.
"""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fedistill.data import LabelledRows
from fedistill.labels import LabelRelease
from fedistill.mechanisms import Plan
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Adjacency
from tests.statistical.distinguishing import (
    epsilon_from_mu,
    mu_from_shift,
    mu_from_threshold,
    mu_of_event,
    power_of_shift,
    power_of_threshold,
)
from tests.statistical.sampler import Draw, Sampler, as_shipped, draws_of, shrunk, tapped, told
from tests.statistical.worst_cases import WORST_CASES, WorstCase, every_mechanism

pytestmark = pytest.mark.statistical

FALSE_ALARM = 1e-6
"""Of each test, for all mechanisms and both attacks together."""

ALPHA = FALSE_ALARM / len(WORST_CASES) / 2
POWER = 0.999
EPSILON = 10.0
"""Large, so that few releases tell: mu is 1.9, and a twin with half the noise has 3.8."""

RUNS = 350
TRAINING = 100
AUDIT_RUNS = 3_000
LEAST_OF_CODES = 0.9
"""Share of mu that codes and parameters must keep for the stated power."""


Release = tuple[list[Draw], LabelRelease]
"""What was noised, and what left."""


def releases(
    case: WorstCase, rows: LabelledRows, plan: Plan, sampler: Sampler, runs: int
) -> list[Release]:
    """Releases of `rows` with noise of `sampler`."""
    found = []
    for _ in range(runs):
        with tapped(sampler) as draws:
            release = case.release(rows, plan)
        found.append((draws, release))
    return found


def likelihood_ratio(case: WorstCase, plan: Plan, draws: list[Draw]) -> float:
    """Log-likelihood ratio of noised integers, present against absent, over its spread.

    The best statistic there is: both data sets are told the same earlier answers, so what a later
    round moved is exact too. With a Gaussian mechanism it is N(+-mu / 2, 1).
    """
    present, absent = (
        told(lambda rows=rows: case.release(rows, plan), draws)
        for rows in (case.present, case.absent)
    )
    ratio = squared_distance = 0.0
    for draw, one, other in zip(draws, present, absent, strict=True):
        moved = (one.exact - other.exact) / draw.scale
        middle = (one.exact + other.exact) / 2
        ratio += float(moved @ (draw.noised - middle)) / draw.scale
        squared_distance += float(moved @ moved)
    return ratio / np.sqrt(max(squared_distance, 1e-12))


def what_leaves(found: list[Release]) -> np.ndarray:
    """(num_releases, num_numbers): codes and parameters."""
    return np.stack(
        [
            np.concatenate([release.codes.ravel(), [*release.parameters.values()]])
            for _, release in found
        ]
    )


def bound(present: np.ndarray, absent: np.ndarray) -> float:
    """Lower confidence bound on mu by the threshold 0."""
    return mu_from_threshold(int((present > 0).sum()), int((absent > 0).sum()), RUNS, ALPHA)


def attack(case: WorstCase, plan: Plan, sampler: Sampler) -> tuple[float, float]:
    """Lower bounds on mu: of the noised integers, and of what leaves."""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    sides = [
        releases(case, rows, plan, sampler, TRAINING + RUNS) for rows in (case.absent, case.present)
    ]
    leaves = [what_leaves(side) for side in sides]
    model.fit(
        np.concatenate([side[:TRAINING] for side in leaves]),
        np.repeat([0, 1], [TRAINING, TRAINING]),
    )
    absent, present = (
        np.array([likelihood_ratio(case, plan, draws) for draws, _ in side[TRAINING:]])
        for side in sides
    )
    absent_seen, present_seen = (model.decision_function(side[TRAINING:]) for side in leaves)
    return bound(present, absent), bound(present_seen, absent_seen)


@every_mechanism
def test_releases_hide_a_record_as_well_as_claimed(case: WorstCase) -> None:
    """False alarm 1e-6 over all mechanisms and attacks, which do find something."""
    plan = case.plan(EPSILON)
    claim, delta = mu_of_event(plan.event), plan.question.delta
    for found in attack(case, plan, as_shipped):
        assert 0.1 * claim < found <= claim
        assert epsilon_from_mu(found, delta) <= epsilon_of(plan.event, delta, Adjacency.ADD_REMOVE)


@every_mechanism
def test_half_the_noise_is_caught(case: WorstCase) -> None:
    """Both attacks, each with a power of at least 99.9% where its statistic keeps 90% of mu."""
    plan = case.plan(EPSILON)
    claim, delta = mu_of_event(plan.event), plan.question.delta
    sharp = 2 * claim * LEAST_OF_CODES
    assert power_of_threshold(RUNS, claim=claim, true=sharp, alpha=ALPHA) > POWER
    for found in attack(case, plan, shrunk(0.5)):
        assert found > claim
        assert epsilon_from_mu(found, delta) > plan.question.epsilon


@pytest.mark.slow
@every_mechanism
@pytest.mark.parametrize(("factor", "hidden"), [(1.0, True), (0.5, False)])
def test_at_epsilon_1_an_audit_of_the_shift_catches_half_the_noise_too(
    case: WorstCase, factor: float, hidden: bool
) -> None:
    """False alarm 1e-6 over all mechanisms, power at least 99.9%; on the noised integers.

    A threshold test would need some 50,000 releases for that.
    """
    runs, alpha = AUDIT_RUNS, FALSE_ALARM / len(WORST_CASES)
    plan = case.plan(1.0)
    claim = mu_of_event(plan.event)
    assert power_of_shift(runs, claim=claim, true=2 * claim, alpha=alpha) > POWER
    present, absent = (
        np.array([likelihood_ratio(case, plan, draws) for draws in noised])
        for noised in (
            draws_of(lambda rows=rows: case.release(rows, plan), shrunk(factor), times=runs)
            for rows in (case.present, case.absent)
        )
    )
    assert (mu_from_shift(present, absent, alpha) <= claim) is hidden
