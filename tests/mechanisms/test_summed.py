"""What may be summed over sites, what a part of a sum costs, and what follows from the sum."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import probabilities
from fedistill.mechanisms import mechanism_named, mechanism_names, sum_vectors
from fedistill.mechanisms.summed import SUMMABLE, SumPlan, nothing_opened, summable
from fedistill.privacy.accountant import calibrate_rho, epsilon_of
from fedistill.privacy.adjacency import Adjacency
from tests.mechanisms.summing import ASKED, every_summable, exact_integers, shared, sum_over
from tests.mechanisms.toy import ask, make_proxy, make_rows, true_logits, without_rows
from tests.statistical.worst_cases import secret_and_others

DELTA = 1e-5


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


def plan_of(name: str, proxy: ProxySet, *, num_sites: int = 3, honest: int = 0, **changes):
    question = ask(proxy, name, **ASKED[name] | changes)
    question = shared(question, honest) if honest else question
    return summable(name).plan_sum(question, proxy, rows_at_least=1, num_sites=num_sites)


def epsilons(plans: list[SumPlan]) -> tuple[float, float]:
    """Of all rounds: with the honest sites' noise, and with the site's own alone."""
    return (
        epsilon_of([plan.event for plan in plans], DELTA, Adjacency.ADD_REMOVE),
        epsilon_of([plan.alone for plan in plans], DELTA, Adjacency.ADD_REMOVE),
    )


def all_rounds(name: str, proxy: ProxySet, **changes) -> list[SumPlan]:
    rounds = ASKED[name].get("rounds", 1)
    return [plan_of(name, proxy, round=number, **changes) for number in range(1, rounds + 1)]


@every_summable
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("honest", [1, 2, 3])
def test_all_rounds_cost_what_was_asked_while_so_many_are_honest(
    name, proxy, epsilon, honest
) -> None:
    shares, alone = epsilons(all_rounds(name, proxy, epsilon=epsilon, honest=honest))
    assert 0.999 * epsilon < shares <= epsilon
    assert alone == shares if honest == 1 else alone > 1.3 * shares


@every_summable
def test_own_noise_alone_costs_as_many_times_rho_as_sites_are_honest(name, proxy) -> None:
    def rho(event) -> float:
        parts = [event] if isinstance(event, ZCDpEvent) else event.events
        return sum(part.rho for part in parts)

    for plan in all_rounds(name, proxy, honest=3):
        assert rho(plan.alone) == pytest.approx(3 * rho(plan.event), rel=1e-9)


@every_summable
def test_without_trust_a_site_makes_all_noise_itself(name, proxy) -> None:
    plans = all_rounds(name, proxy)
    assert all(plan.event == plan.alone for plan in plans)
    assert all(vector.honest == 1 for plan in plans for vector in plan.vectors)
    single = calibrate_rho(1.0, DELTA)
    total = sum(v.squared_sensitivity / v.scale**2 / 2 for plan in plans for v in plan.vectors)
    assert single * 0.999 < total <= single * (1 + 1e-9)


@every_summable
@pytest.mark.parametrize("num_sites", [2, 3, 40])
def test_what_sites_send_has_the_planned_length_and_never_wraps(name, proxy, num_sites) -> None:
    plan = plan_of(name, proxy, num_sites=num_sites, honest=2)
    weights = nothing_opened(plan.question, proxy).weights
    sent = summable(name).noised_integers(make_rows(200), proxy, plan, weights)
    assert sent.shape == (plan.length,)
    assert sent.dtype == np.int64
    assert np.abs(sent).max() <= plan.largest
    assert num_sites * plan.largest < 2**31


def worst_neighbours(name: str) -> tuple[LabelledRows, LabelledRows]:
    present, absent = secret_and_others(5 if name in ("corrections", "dp-probe") else 2)
    return (present, without_rows()) if name == "clipped-site" else (present, absent)


@every_summable
@pytest.mark.parametrize("honest", [1, 2])
def test_neighbours_move_what_is_noised_by_at_most_the_sensitivity(name, proxy, honest) -> None:
    """In exact integers, after division, for weights that a server may have made up too."""
    present, absent = worst_neighbours(name)
    random, found = np.random.default_rng(0), []
    for number in range(1, ASKED[name].get("rounds", 1) + 1):
        asked = {"round": number, "num_classes": present.num_classes, "honest": honest}
        if name == "sharded":
            asked["shards"] = 1  # with more, chance decides which teacher sees the record
        plan = plan_of(name, proxy, **asked)
        shape = nothing_opened(plan.question, proxy).weights.shape
        for size in (0.0, 1.0, 1e3, np.inf):
            weights = np.sign(random.normal(size=shape)) * size
            pairs = zip(
                plan.vectors,
                exact_integers(present, proxy, plan, weights),
                exact_integers(absent, proxy, plan, weights),
                strict=True,
            )
            for vector, one, other in pairs:
                moved = int(((one - other).astype(object) ** 2).sum())
                assert moved <= vector.squared_sensitivity
                found.append(moved / vector.squared_sensitivity)
    assert max(found) > 0.9


@every_summable
def test_a_bad_record_counts_as_nothing(name, proxy) -> None:
    """PRIVACY rule 3."""
    good = make_rows(60)
    bad = replace(
        good,
        rows=np.concatenate([good.rows, good.rows[:3] * np.float32(np.inf)]),
        labels=np.concatenate([good.labels, [-1, 2, 99]]),
    )
    plan = plan_of(name, proxy, honest=2, **({"shards": 1} if name == "sharded" else {}))
    weights = nothing_opened(plan.question, proxy).weights
    for one, other in zip(
        exact_integers(good, proxy, plan, weights),
        exact_integers(bad, proxy, plan, weights),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@every_summable
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
def test_no_weights_that_a_server_sends_make_a_site_raise(name, proxy, value) -> None:
    plan = plan_of(name, proxy, honest=2)
    weights = np.full_like(nothing_opened(plan.question, proxy).weights, value)
    for rows in (make_rows(20), without_rows()):
        sent = summable(name).noised_integers(rows, proxy, plan, weights)
        assert np.abs(sent).max() <= plan.largest


@every_summable
def test_every_vector_gets_the_planned_noise(name, proxy, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        sum_vectors, "add_noise", lambda sums, scale: (drawn.append((sums.size, scale)), sums)[1]
    )
    plan = plan_of(name, proxy, honest=2)
    weights = nothing_opened(plan.question, proxy).weights
    summable(name).noised_integers(make_rows(40), proxy, plan, weights)
    assert drawn == [(vector.entries, vector.scale) for vector in plan.vectors]


@every_summable
def test_a_plan_sees_no_private_rows_and_nothing_takes_a_generator(name) -> None:
    mechanism = summable(name)
    assert "rows" not in inspect.signature(mechanism.plan_sum).parameters
    for method in ("plan_sum", "noised_integers", "open_sum", "answer_sum"):
        parameters = set(inspect.signature(getattr(mechanism, method)).parameters)
        assert not parameters & {"rng", "seed", "random", "generator"}


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("corrections", {"rounds": 4}),
        ("dp-probe", {}),
        ("votes", {"cells": 40}),
        ("sharded", {"teacher": "", "shards": 20, "queries": 200}),
        ("clipped", {"teacher": "", "epsilon": 99.0, "clip_norm": 40.0}),
    ],
)
def test_with_enough_rows_the_sum_learns_the_classes(proxy, name, changes, num_classes) -> None:
    sites = [make_rows(3_000, num_classes, seed=10 + site) for site in range(3)]
    asked = ASKED[name] | {"epsilon": 4.0, "num_classes": num_classes} | changes
    found = sum_over(sites, proxy, shared(ask(proxy, name, **asked), 2))
    fresh = make_rows(2_000, num_classes, seed=2)
    basis = proxy_basis(proxy)
    weights = found.state.weights
    logits = basis.features(fresh.rows) @ (weights[:, 1:] - weights[:, :1])
    accuracy = (probabilities(logits).argmax(1) == fresh.labels).mean()
    ceiling = (true_logits(fresh.rows, num_classes).argmax(1) == fresh.labels).mean()
    assert accuracy > ceiling - 0.08
    assert found.release.mechanism == name
    assert found.release.codes.shape == (400, num_classes - 1)
    assert set(found.release.parameters) == set(mechanism_named(name).parameters)


@pytest.mark.parametrize("name", ["corrections", "dp-probe", "votes", "sharded"])
def test_the_count_is_of_all_sites(proxy, name) -> None:
    sites = [make_rows(500, seed=site) for site in range(3)]
    found = sum_over(sites, proxy, shared(ask(proxy, name, **ASKED[name]), 2))
    spread = 1.0 / np.sqrt(2 * 0.01 * calibrate_rho(1.0, DELTA))
    assert abs(found.state.count - 1_500) < 10 * spread
    assert found.release.parameters["noised-count"] == found.state.count


def test_mechanisms_that_noise_something_else_are_refused_with_a_way_out() -> None:
    for name in set(mechanism_names()) - set(SUMMABLE):
        with pytest.raises(PolicyRefusal, match=r"cannot be summed .* such as 'corrections'"):
            summable(name)
    with pytest.raises(PolicyRefusal, match="did you mean 'votes'"):
        summable("vote")


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("sharded", {"answers": "confident"}, "answers='confident' must be 'soft'"),
        ("dp-probe", {"solver": "combined"}, "solver='combined' must be 'moment'.*'corrections'"),
        ("dp-probe", {"solver": "gradient"}, "solver='gradient' must be 'moment'"),
        ("dp-probe", {"probe_steps": 3}, "probe-steps=3 must be 1"),
        ("votes", {"cells": 0}, "cells=0"),
        ("corrections", {"round": 4}, "round=4 must be from 1 to rounds=3"),
        ("corrections", {"round": 0}, "round=0 must be from 1"),
        ("corrections", {"rounds": 101}, "rounds=101 must be from 1 to 100"),
        ("corrections", {"honest": 4}, "min-honest-sites=4 must be from 1 to 3"),
        ("corrections", {"trust": "all"}, "trust='all' must be 'none' or 'secagg'"),
        ("corrections", {"num_sites": 0}, "num-sites=0 must be at least 1"),
        ("clipped", {"clip_norm": 0.0}, "clip-norm=0"),
        ("corrections", {"epsilon": 1e-4, "num_sites": 5_000}, "raise epsilon, or invite fewer"),
    ],
)
def test_what_cannot_be_summed_is_refused_in_the_plan(proxy, name, changes, told) -> None:
    with pytest.raises(PolicyRefusal, match=told):
        plan_of(name, proxy, **changes)


def test_a_sum_of_another_length_is_refused(proxy) -> None:
    plan = plan_of("votes", proxy, honest=2)
    before = nothing_opened(plan.question, proxy)
    with pytest.raises(ValueError, match="total has shape"):
        summable("votes").open_sum(
            np.zeros(plan.length + 1, np.int64), proxy, plan, num_sites=3, before=before
        )
