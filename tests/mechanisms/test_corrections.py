"""dp-probe's steps with the sum over sites inside the loop."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import probabilities
from fedistill.mechanisms import mechanism_named, sum_vectors
from fedistill.mechanisms.corrections import Corrections
from fedistill.mechanisms.summed import summable
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Adjacency
from tests.mechanisms.summing import ASKED, exact_integers, shared, sum_over
from tests.mechanisms.toy import ask, make_proxy, make_rows, true_logits


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sum_vectors, "add_noise", lambda sums, scale: sums)


def cut_in_three(rows: LabelledRows) -> list[LabelledRows]:
    return [rows.take(part) for part in np.array_split(np.arange(len(rows.rows)), 3)]


@pytest.mark.usefixtures("no_noise")
def test_three_sites_learn_what_one_with_all_their_rows_learns(proxy) -> None:
    """What is left is rounding: a step a site, of sums of hundreds of steps."""
    rows = make_rows(3_000)
    question = ask(proxy, "corrections", rounds=5)
    together = sum_over([rows], proxy, question).state
    apart = sum_over(cut_in_three(rows), proxy, question).state
    assert together.count == apart.count == 3_000
    logits = [proxy_basis(proxy).values @ state.weights for state in (together, apart)]
    # The ridge follows the noise, of which three sites make more than one.
    correlation = np.corrcoef(logits[0].ravel(), logits[1].ravel())[0, 1]
    assert correlation > 0.999


@pytest.mark.usefixtures("no_noise")
def test_unlike_sites_learn_what_neither_could_alone(proxy) -> None:
    """Each site has one class; only the sum knows both."""
    rows = make_rows(2_000)
    sites = [rows.take(np.flatnonzero(rows.labels == label)) for label in (0, 1)]
    found = sum_over(sites, proxy, ask(proxy, "corrections", rounds=6))
    answers = probabilities(found.release.log_odds).argmax(1)
    best = true_logits(proxy.rows, 2).argmax(1)
    assert (answers == best).mean() > 0.9


def test_one_round_is_the_moment_of_dp_probe(proxy) -> None:
    asked = {"solver": "moment", "probe_steps": 0}
    one, other = (
        summable(name).plan_sum(ask(proxy, name, **asked), proxy, rows_at_least=20, num_sites=3)
        for name in ("corrections", "dp-probe")
    )
    assert (one.event, one.vectors, one.largest) == (other.event, other.vectors, other.largest)
    weights = np.zeros((proxy_basis(proxy).map.num_features, 2))
    for ours, theirs in zip(
        exact_integers(make_rows(50), proxy, one, weights),
        exact_integers(make_rows(50), proxy, other, weights),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_rounds_of_dp_probe_are_always_one(proxy) -> None:
    """It is a single release: `rounds` of the question is for `corrections`."""
    question = ask(proxy, "dp-probe", solver="moment", probe_steps=0, rounds=5, round=3)
    plan = summable("dp-probe").plan_sum(question, proxy, rows_at_least=20, num_sites=3)
    assert len(plan.vectors) == 2
    assert epsilon_of(plan.event, 1e-5, Adjacency.ADD_REMOVE) > 0.999


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_the_first_round_counts_and_all_rounds_cost_alike(proxy, rounds: int) -> None:
    plans = [
        summable("corrections").plan_sum(
            shared(ask(proxy, "corrections", rounds=rounds, round=number), 2),
            proxy,
            rows_at_least=20,
            num_sites=3,
        )
        for number in range(1, rounds + 1)
    ]
    assert [len(plan.vectors) for plan in plans] == [2, *[1] * (rounds - 1)]
    costs = [plan.vectors[0].rho for plan in plans]
    assert max(costs) <= min(costs) * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.0, 0.1, 10.0, 1e5]))
def test_a_person_moves_a_round_by_at_most_the_sensitivity(seed: int, size: float) -> None:
    """All rows of a unit together, at whatever weights the server sends."""
    random, proxy = np.random.default_rng(seed), make_proxy(60)
    rows = replace(make_rows(40, 3, seed=seed % 1_000), units=random.integers(6, size=40))
    without = rows.take(np.flatnonzero(rows.units != 2))
    question = ask(proxy, "corrections", rounds=3, round=int(random.integers(1, 4)), num_classes=3)
    plan = summable("corrections").plan_sum(question, proxy, rows_at_least=1, num_sites=3)
    weights = random.normal(size=(proxy_basis(proxy).map.num_features, 3)) * size
    for vector, one, other in zip(
        plan.vectors,
        exact_integers(rows, proxy, plan, weights),
        exact_integers(without, proxy, plan, weights),
        strict=True,
    ):
        assert int(((one - other).astype(object) ** 2).sum()) <= vector.squared_sensitivity


def test_a_site_that_is_gone_after_the_first_round_is_missed_and_nothing_breaks(proxy) -> None:
    sites = [make_rows(2_000, seed=site) for site in range(3)]
    question = shared(ask(proxy, "corrections", rounds=4, epsilon=4.0), 2)
    found = sum_over(sites, proxy, question, gone=lambda number: int(number > 1))
    assert found.state.num_sites == (3, 2, 2, 2)
    whole = sum_over(sites, proxy, question)
    # Two sites' noise in the later sums instead of three's, over fewer rows.
    assert (found.response.noise_variance > whole.response.noise_variance)[-5:].all()
    answers = probabilities(found.release.log_odds).argmax(1)
    assert (answers == true_logits(proxy.rows, 2).argmax(1)).mean() > 0.85


def test_alone_a_site_is_a_federation_of_one(proxy) -> None:
    mechanism = mechanism_named("corrections")
    question = ask(proxy, "corrections", rounds=4, epsilon=4.0)
    plan = mechanism.plan(question, proxy, rows_at_least=20)
    assert 3.99 < epsilon_of(plan.event, 1e-5, Adjacency.ADD_REMOVE) <= 4.0
    release, teacher = mechanism.release(make_rows(4_000), proxy, plan)
    labels = mechanism.label(teacher, proxy, proxy)
    np.testing.assert_allclose(release.log_odds, labels.log_odds, atol=2e-4)
    answers = probabilities(release.log_odds).argmax(1)
    assert (answers == true_logits(proxy.rows, 2).argmax(1)).mean() > 0.85
    response = mechanism.response(question, release, proxy)
    summed = sum_over([make_rows(4_000)], proxy, question).response
    np.testing.assert_allclose(response.gain, summed.gain, rtol=0.2)
    np.testing.assert_allclose(response.noise_variance, summed.noise_variance, rtol=0.2)


def test_alone_a_site_shares_no_noise(proxy) -> None:
    question = shared(ask(proxy, "corrections", rounds=4), 2)
    with pytest.raises(PolicyRefusal, match="set secure-aggregation = true"):
        Corrections().plan(question, proxy, rows_at_least=20)


def test_another_plan_is_refused(proxy) -> None:
    plan = mechanism_named("dp-probe").plan(ask(proxy, "dp-probe"), proxy, rows_at_least=20)
    with pytest.raises(TypeError, match="CorrectionsPlan"):
        Corrections().release(make_rows(10), proxy, plan)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("name", "changes"),
    [("corrections", {"rounds": 4}), ("dp-probe", {}), ("sharded", {"teacher": "", "shards": 10})],
)
def test_the_response_predicts_the_noise_of_three_sites(name: str, changes) -> None:
    """As `test_dp_probe` has it for one site: a halved or doubled variance fails."""
    proxy = make_proxy(600)
    basis, question = proxy_basis(proxy), ask(proxy, name, **ASKED[name] | changes, epsilon=0.5)
    sites = cut_in_three(make_rows(3_000))
    sums = [sum_over(sites, proxy, shared(question, 2)) for _ in range(60)]
    weights = np.stack([each.state.weights for each in sums])
    along = np.einsum("ij,sjk->sik", basis.eigenvectors.T, weights)
    spread = along.var(axis=0, ddof=1).sum(axis=1)
    ratio = (spread / sums[0].response.noise_variance)[-20:].mean()
    assert 0.6 < ratio < 1.6
