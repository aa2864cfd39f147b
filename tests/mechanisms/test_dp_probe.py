import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, SelfComposedDpEvent, ZCDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.errors import PolicyRefusal
from fedistill.features import FEATURE_STEP, proxy_basis
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import dp_probe
from fedistill.mechanisms.dp_probe import DPProbe
from fedistill.mechanisms.probe_rounds import CLIP, LARGE_SITE, ROUNDS, clips_of
from fedistill.mechanisms.probe_sums import Records, clipped_residuals
from fedistill.mechanisms.unit_weights import unit_sizes
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.grid import exact_matmul, squared_norms, to_grid

COLUMNS = ("a", "b", "c", "d")
CLIP_INTEGER = int(CLIP / FEATURE_STEP * 2**14)


def make_rows(num_rows: int, num_classes: int = 2, seed: int = 0) -> LabelledRows:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num_rows, len(COLUMNS))).astype(np.float32)
    logits = np.stack([(k - 1) * rows[:, k % 4] * 2 for k in range(num_classes)], 1)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return LabelledRows(columns=COLUMNS, rows=rows, labels=labels, num_classes=num_classes)


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return ProxySet(schema=numbers(COLUMNS), rows=make_rows(400, seed=1).rows)


def question(proxy: ProxySet, **changes) -> LabelQuestion:
    asked = {
        "mechanism": "dp-probe",
        "epsilon": 1.0,
        "delta": 1e-5,
        "num_classes": 2,
        "proxy_sha256": proxy.sha256,
    }
    return LabelQuestion(**(asked | changes))


def features_and_weights(seed: int, num_rows: int, num_classes: int):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num_rows, 30))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) * random.uniform(1, 9, (num_rows, 1))
    labels = random.integers(num_classes, size=num_rows)
    weights = random.normal(size=(30, num_classes)) * 10 ** random.uniform(-2, 2)
    return to_grid(rows, FEATURE_STEP), labels, weights


def records(features, labels, units=None) -> Records:
    sizes = unit_sizes(units, np.ones(len(labels), np.bool_))
    return Records(
        features=features, labels=labels, unit_sizes=sizes, num_units=round((1 / sizes).sum())
    )


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), most=st.integers(1, 30))
def test_adding_a_unit_moves_the_sum_by_at_most_the_clip(seed, classes: int, most: int) -> None:
    """All rows of one person together stay within the bound of one row."""
    features, labels, weights = features_and_weights(seed, 80, classes)
    units = np.random.default_rng(seed).integers(most, size=80)
    # One person's rows all alike: the case in which nothing cancels.
    features[units == 0], labels[units == 0] = features[0], labels[0]
    whole = clipped_residuals(records(features, labels, units), weights, clip=CLIP_INTEGER)
    total = exact_matmul(features.T, whole)
    for unit in (0, most - 1):
        kept = units != unit
        without = records(features[kept], labels[kept], units[kept])
        rest = clipped_residuals(without, weights, clip=CLIP_INTEGER)
        np.testing.assert_array_equal(rest, whole[kept])
        moved = (total - exact_matmul(features[kept].T, rest)).astype(object)
        assert int((moved**2).sum()) <= CLIP_INTEGER**2


def test_a_unit_of_many_rows_counts_as_one_of_one_row(proxy, monkeypatch) -> None:
    monkeypatch.setattr(dp_probe, "add_noise", lambda sums, scale: sums)
    mechanism, once = DPProbe(), make_rows(120)
    plan = mechanism.plan(question(proxy), proxy, rows_at_least=1)
    tenfold = replace(once.take(np.repeat(np.arange(120), 10)), units=np.repeat(np.arange(120), 10))
    release, _ = mechanism.release(once, proxy, plan)
    same, _ = mechanism.release(tenfold, proxy, plan)
    assert release.parameters == same.parameters == {"noised-count": 120.0}
    np.testing.assert_allclose(release.log_odds, same.log_odds, atol=0.02)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12))
def test_adding_a_record_moves_the_sum_by_at_most_the_clip(seed: int, classes: int) -> None:
    """The sensitivity of PRIVACY's table, in exact integers, over the whole matrix at once."""
    features, labels, weights = features_and_weights(seed, 50, classes)
    residuals = clipped_residuals(records(features, labels), weights, clip=CLIP_INTEGER)
    total = exact_matmul(features.T, residuals)
    for left_out in (0, 17, 49):
        kept = np.arange(50) != left_out
        rest = clipped_residuals(records(features[kept], labels[kept]), weights, clip=CLIP_INTEGER)
        moved = (total - exact_matmul(features[kept].T, rest)).astype(object)
        assert int((moved**2).sum()) <= CLIP_INTEGER**2


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12))
def test_a_records_integers_do_not_depend_on_the_other_rows(seed: int, classes: int) -> None:
    """PRIVACY rule 8."""
    features, labels, weights = features_and_weights(seed, 200, classes)
    whole = clipped_residuals(records(features, labels), weights, clip=CLIP_INTEGER)
    kept = np.flatnonzero(np.random.default_rng(seed).random(200) < 0.4)
    np.testing.assert_array_equal(
        clipped_residuals(records(features[kept], labels[kept]), weights, clip=CLIP_INTEGER),
        whole[kept],
    )


@pytest.mark.parametrize("size", [0.0, 1e6, 1e300, np.inf])
def test_wild_weights_do_not_raise(size: float) -> None:
    """PRIVACY rule 3: whether a site answers must not depend on its rows."""
    features, labels, weights = features_and_weights(5, 40, 3)
    residuals = clipped_residuals(
        records(features, labels), np.sign(weights) * size, clip=CLIP_INTEGER
    )
    total = exact_matmul(features.T, residuals)
    assert np.isfinite(total).all()


def test_small_gradients_are_not_clipped() -> None:
    features, labels, weights = features_and_weights(3, 300, 3)
    residuals = clipped_residuals(records(features, labels), weights, clip=CLIP_INTEGER) * 2.0**-14
    exact = np.eye(3)[labels] - probabilities(
        (features * FEATURE_STEP) @ (weights[:, 1:] - weights[:, :1])
    )
    norms = np.sqrt(squared_norms(features)) * FEATURE_STEP * np.linalg.norm(exact, axis=1)
    small = norms < 0.9 * CLIP
    assert small.any()
    np.testing.assert_allclose(residuals[small], exact[small], atol=1e-4)
    assert (np.abs(residuals[~small]) <= np.abs(exact[~small]) + 1e-9).all()


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 4.0])
@pytest.mark.parametrize(
    ("solver", "steps"), [("moment", 1), ("gradient", 6), ("combined", 0), ("combined", 40)]
)
def test_the_plan_costs_what_was_asked_and_no_more(proxy, epsilon, solver: str, steps) -> None:
    """Against an independent formula: zCDP to approximate DP, minimised over all real orders."""
    asked = question(proxy, epsilon=epsilon, solver=solver, probe_steps=steps, num_classes=3)
    plan = DPProbe().plan(asked, proxy, rows_at_least=20)
    rho = 0.5 / plan.count_scale**2 + sum(0.5 * (r.clip / r.scale) ** 2 for r in plan.schedules[1])

    def converted(log_excess: float) -> float:
        order = 1 + math.exp(log_excess)
        return rho * order + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)

    oracle = minimize_scalar(converted, bounds=(-5, 12), method="bounded").fun
    assert epsilon_of(plan.event, 1e-5, DPProbe.adjacency) <= epsilon
    assert epsilon * 0.9999 <= oracle <= epsilon


def test_the_event_states_every_noisy_sum(proxy) -> None:
    plan = DPProbe().plan(question(proxy, probe_steps=3), proxy, rows_at_least=20)
    moment, gradient, _ = plan.schedules[1]
    assert plan.event == ComposedDpEvent(
        [
            ZCDpEvent(0.5 / plan.count_scale**2),
            SelfComposedDpEvent(ZCDpEvent(0.5 * (moment.clip / moment.scale) ** 2), 1),
            SelfComposedDpEvent(ZCDpEvent(0.5 * (gradient.clip / gradient.scale) ** 2), 2),
        ]
    )


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_solvers_differ_in_their_rounds_alone(proxy, num_classes: int) -> None:
    """PRIVACY's table: the moment of phi (e_y - 1/K) has norm at most sqrt(1 - 1/K)."""
    moment = math.floor(math.sqrt(1 - 1 / num_classes) * 2**30)
    clips = {
        solver: clips_of(question(proxy, solver=solver, num_classes=num_classes))
        for solver in ROUNDS
    }
    assert clips == {
        "moment": ((moment,),) * 3,
        "combined": tuple((moment, *[CLIP_INTEGER] * more) for more in (0, 2, 9)),
        "gradient": ((CLIP_INTEGER,) * 6,) * 3,
    }


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_however_many_rounds_a_site_takes_they_cost_what_was_charged(proxy, epsilon) -> None:
    """The noised count decides how many; the charge was made before it was drawn."""
    plan = DPProbe().plan(question(proxy, epsilon=epsilon), proxy, rows_at_least=20)
    charged = epsilon_of(plan.event, 1e-5, DPProbe.adjacency)
    count = ZCDpEvent(0.5 / plan.count_scale**2)
    for rounds in plan.schedules:
        sums = [ZCDpEvent(0.5 * (r.clip / r.scale) ** 2) for r in rounds]
        cost = epsilon_of(ComposedDpEvent([count, *sums]), 1e-5, DPProbe.adjacency)
        assert cost <= charged * (1 + 1e-12)
        assert cost >= charged * 0.9999


@pytest.mark.parametrize(
    ("noised", "rounds"), [(50, 1), (100, 3), (LARGE_SITE - 1, 3), (LARGE_SITE, 10)]
)
def test_the_noised_count_decides_and_not_the_rows(proxy, monkeypatch, noised, rounds) -> None:
    drawn = []

    def spy(sums, scale):
        drawn.append(sums.shape)
        return np.array([noised]) if sums.shape == (1,) else sums

    monkeypatch.setattr(dp_probe, "add_noise", spy)
    mechanism = DPProbe()
    mechanism.release(make_rows(50), proxy, mechanism.plan(question(proxy), proxy, rows_at_least=1))
    assert len(drawn) == 1 + rounds


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12))
def test_the_moment_is_never_clipped(seed: int, classes: int) -> None:
    features, labels, _ = features_and_weights(seed, 60, classes)
    features[0] = 0
    features[0, 0] = 2**16  # the longest row there may be
    clip = math.floor(math.sqrt(1 - 1 / classes) * 2**30)
    zero = np.zeros((features.shape[1], classes))
    residuals = clipped_residuals(records(features, labels), zero, clip=clip)
    exact = (np.eye(classes)[labels] - 1 / classes) * 2**14
    assert np.abs(residuals - exact).max() < 1.0 + 1e-6


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"solver": "momentum"}, "did you mean 'moment'"),
        ({"solver": "moment", "probe_steps": 2}, "probe-steps=2 must be 1 with solver='moment'"),
    ],
)
def test_a_solver_that_cannot_be_is_refused_in_the_plan(proxy, changes, told: str) -> None:
    with pytest.raises(PolicyRefusal, match=told):
        DPProbe().plan(question(proxy, **changes), proxy, rows_at_least=20)


def test_the_plan_is_made_without_private_rows() -> None:
    assert "rows" not in inspect.signature(DPProbe.plan).parameters


def test_no_method_takes_a_random_generator() -> None:
    for name in ("plan", "release", "label", "response"):
        parameters = set(inspect.signature(getattr(DPProbe, name)).parameters)
        assert not parameters & {"rng", "seed", "random", "generator"}


def test_every_noisy_sum_gets_the_planned_noise(proxy, monkeypatch) -> None:
    """Spy on the sampler: one count and `probe-steps` full matrices, at the plan's scales."""
    drawn = []

    def spy(sums, scale):
        drawn.append((sums.shape, scale))
        return sums

    monkeypatch.setattr(dp_probe, "add_noise", spy)
    mechanism, rows = DPProbe(), make_rows(100)
    plan = mechanism.plan(question(proxy), proxy, rows_at_least=20)
    mechanism.release(rows, proxy, plan)
    shape = (proxy_basis(proxy).map.num_features, 2)
    assert drawn == [((1,), plan.count_scale)] + [(shape, r.scale) for r in plan.schedules[1]]


@pytest.mark.parametrize("solver", ROUNDS)
def test_the_sum_reaches_the_noise_at_its_true_sensitivity(proxy, monkeypatch, solver) -> None:
    """What is noised, not only what is computed: remove one record, compare the sums."""
    mechanism = DPProbe()
    asked = question(proxy, solver=solver)
    plan = mechanism.plan(asked, proxy, rows_at_least=20)

    def sums_of(rows: LabelledRows) -> list[np.ndarray]:
        sums = []
        monkeypatch.setattr(dp_probe, "add_noise", lambda s, scale: (sums.append(s), s * 0)[1])
        mechanism.release(rows, proxy, plan)
        return sums

    rows = make_rows(60)
    whole = sums_of(rows)
    for left_out in range(0, 60, 13):
        kept = np.arange(60) != left_out
        rest = sums_of(
            LabelledRows(
                columns=COLUMNS, rows=rows.rows[kept], labels=rows.labels[kept], num_classes=2
            )
        )
        assert abs(int(whole[0][0] - rest[0][0])) == 1
        # With the noise held at zero the weights stay zero, so all rounds see the same state.
        for this, with_record, without in zip(plan.rounds(20), whole[1:], rest[1:], strict=True):
            moved = (with_record - without).astype(object)
            assert 0 < int((moved**2).sum()) <= this.clip**2


def test_a_record_with_an_impossible_label_counts_as_nothing(proxy, monkeypatch) -> None:
    """PRIVACY rule 3: total at run time."""
    monkeypatch.setattr(dp_probe, "add_noise", lambda sums, scale: sums)
    mechanism, good = DPProbe(), make_rows(80)
    plan = mechanism.plan(question(proxy), proxy, rows_at_least=1)
    bad = LabelledRows(
        columns=COLUMNS,
        rows=np.concatenate([good.rows, good.rows[:3] * np.inf]).astype(np.float32),
        labels=np.concatenate([good.labels, [-1, 2, 99]]),
        num_classes=2,
    )
    release, _ = mechanism.release(good, proxy, plan)
    same, _ = mechanism.release(bad, proxy, plan)
    np.testing.assert_array_equal(release.codes, same.codes)
    assert same.parameters == {"noised-count": 80.0}


@pytest.mark.parametrize("num_classes", [2, 5])
def test_an_empty_site_answers_noise(proxy, num_classes: int) -> None:
    """PRIVACY rule 3: a degenerate teacher does not raise."""
    empty = LabelledRows(
        columns=COLUMNS,
        rows=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        num_classes=num_classes,
    )
    mechanism = DPProbe()
    plan = mechanism.plan(question(proxy, num_classes=num_classes), proxy, rows_at_least=20)
    release, _ = mechanism.release(empty, proxy, plan)
    assert release.codes.shape == (400, num_classes - 1)


@pytest.mark.parametrize("solver", ROUNDS)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_with_enough_rows_the_teacher_learns_the_classes(proxy, num_classes, solver) -> None:
    mechanism, rows = DPProbe(), make_rows(20_000, num_classes)
    asked = question(proxy, epsilon=2.0, num_classes=num_classes, solver=solver)
    plan = mechanism.plan(asked, proxy, rows_at_least=20)
    release, teacher = mechanism.release(rows, proxy, plan)
    fresh = make_rows(2_000, num_classes, seed=2)
    labels = mechanism.label(teacher, proxy, ProxySet(schema=numbers(COLUMNS), rows=fresh.rows))
    accuracy = (probabilities(labels.log_odds).argmax(1) == fresh.labels).mean()
    best = make_rows(2_000, num_classes, seed=2)
    ceiling = np.stack([(k - 1) * best.rows[:, k % 4] * 2 for k in range(num_classes)], 1)
    assert accuracy > (ceiling.argmax(1) == best.labels).mean() - 0.05
    on_proxy = mechanism.label(teacher, proxy, proxy)
    np.testing.assert_allclose(release.log_odds, on_proxy.log_odds, atol=2e-4)


@pytest.mark.statistical
@pytest.mark.parametrize("solver", ROUNDS)
def test_the_response_predicts_gain_and_noise(solver: str) -> None:
    """The law that the server inverts, against the spread of 60 releases of one data set.

    Along the leading eigenvectors the mean squared deviation over its prediction, averaged over 60
    releases and 20 directions, has a relative error of about sqrt(2 / 1200) = 4%; the bounds allow
    for the linearisation too. A halved or doubled variance fails.
    """
    proxy = ProxySet(schema=numbers(COLUMNS), rows=make_rows(600, seed=5).rows)
    mechanism, rows, basis = DPProbe(), make_rows(4_000), proxy_basis(proxy)
    asked = question(proxy, epsilon=0.5, solver=solver)
    plan = mechanism.plan(asked, proxy, rows_at_least=20)
    releases = [mechanism.release(rows, proxy, plan) for _ in range(60)]
    weights = np.stack([teacher.weights for _, teacher in releases])
    along = np.einsum("ij,sjk->sik", basis.eigenvectors.T, weights)
    spread = along.var(axis=0, ddof=1).sum(axis=1)
    predicted = mechanism.response(asked, releases[0][0], proxy).noise_variance
    ratio = (spread / predicted)[-20:].mean()
    assert 0.6 < ratio < 1.6
