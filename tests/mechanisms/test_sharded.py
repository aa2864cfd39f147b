import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, ZCDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.metrics import roc_auc_score

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.distill.target import build_ensemble
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import probabilities
from fedistill.mechanisms import mechanism_named, sharded
from fedistill.mechanisms.sharded import (
    LARGEST_SUM,
    Sharded,
    on_label_grid,
    sensitivity_of,
    sum_of_answers,
)
from fedistill.mechanisms.shards import deal_by_key
from fedistill.privacy.accountant import epsilon_of
from fedistill.teachers import TeachesMany, teacher_named
from tests.mechanisms.toy import COLUMNS, ask, make_proxy, make_rows, true_logits, without_rows

FALSE_ALARM = 1e-6
KEY = b"k" * 32
BUILT_IN = ("logistic", "boosting", "mlp")


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


def answer(rows: LabelledRows, proxy: ProxySet, **changes):
    mechanism = Sharded()
    settings = {"num_classes": rows.num_classes, "shards": 8, "queries": 50} | changes
    asked = ask(proxy, "sharded", **settings)
    return mechanism.release(rows, proxy, mechanism.plan(asked, proxy, rows_at_least=20))


def wild_rows(num_rows: int, seed: int) -> LabelledRows:
    rows = make_rows(num_rows, 3, seed)
    values = rows.rows.copy()
    values[::7, 0] = np.nan
    values[1::11, 1] = 3e38
    values[2::13, 2] = -np.inf
    return replace(rows, rows=values).take(np.r_[np.arange(num_rows), 5, 5, 5])


def one_by_one(teacher: str, rows: LabelledRows, asked: np.ndarray) -> list[np.ndarray]:
    """Each teacher's answers on the shards of a fixed key."""
    shards = [(rows.rows[index], rows.labels[index]) for index in deal_by_key(rows, 6, KEY)]
    model = teacher_named(teacher, rows.num_classes)
    if isinstance(model, TeachesMany):
        return [fitted.predict_proba(asked) for fitted in model.fit_many(shards)]
    return [model.fit(*shard).predict_proba(asked) for shard in shards]


def test_it_is_found_by_name() -> None:
    assert isinstance(mechanism_named("sharded"), Sharded)


@pytest.mark.parametrize("teacher", BUILT_IN)
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_removing_a_record_moves_one_teacher_and_no_bit_of_the_others(
    teacher: str, seed: int
) -> None:
    """PRIVACY rule 8. The first removed row is the largest shard's: no shape may depend on it."""
    rows, asked = wild_rows(150, seed), make_rows(20, seed=1).rows
    before = one_by_one(teacher, rows, asked)
    largest = max(deal_by_key(rows, 6, KEY), key=len)
    for left_out in (largest[0], 5, 70):
        fewer = rows.take(np.flatnonzero(np.arange(len(rows.labels)) != left_out))
        after = one_by_one(teacher, fewer, asked)
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same.count(False) <= 1


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), teacher=st.sampled_from(BUILT_IN))
def test_a_record_moves_the_sum_by_at_most_the_sensitivity(seed: int, teacher: str) -> None:
    """The sensitivity of PRIVACY's table, in exact integers: one unit removed, or replaced."""
    random = np.random.default_rng(seed)
    rows = replace(wild_rows(60, seed), units=np.arange(63))
    other = rows.rows.copy()
    other[17] = random.normal(size=4) * 1e3
    labels = rows.labels.copy()
    labels[17] = (labels[17] + 1) % 3
    asked = make_rows(20, seed=1).rows
    question = ask(make_proxy(20), "sharded", teacher=teacher, num_classes=3, shards=5)

    def exact_sum(given: LabelledRows) -> np.ndarray:
        shards = [(given.rows[i], given.labels[i]) for i in deal_by_key(given, 5, KEY)]
        return sum_of_answers(question, shards, asked).astype(object)

    whole = exact_sum(rows)
    replaced = exact_sum(replace(rows, rows=other, labels=labels))
    removed = exact_sum(rows.take(np.flatnonzero(np.arange(63) != 17)))
    for moved in (whole - replaced, whole - removed):
        assert int((moved**2).sum()) <= sensitivity_of(20) ** 2


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), teacher=st.sampled_from(BUILT_IN))
def test_a_unit_moves_one_teacher_and_the_sum_by_at_most_the_sensitivity(
    seed: int, teacher: str
) -> None:
    """All rows of a unit leave: the other shards' answers stay bit for bit as they were."""
    random = np.random.default_rng(seed)
    rows = replace(wild_rows(90, seed), units=random.integers(12, size=93) ** 2)
    asked = make_rows(20, seed=1).rows
    question = ask(make_proxy(20), "sharded", teacher=teacher, num_classes=3, shards=6)

    def exact_sum(given: LabelledRows) -> np.ndarray:
        shards = [(given.rows[i], given.labels[i]) for i in deal_by_key(given, 6, KEY)]
        return sum_of_answers(question, shards, asked).astype(object)

    before, whole = one_by_one(teacher, rows, asked), exact_sum(rows)
    for unit in random.choice(np.unique(rows.units), 2, replace=False):
        fewer = rows.take(np.flatnonzero(rows.units != unit))
        after = one_by_one(teacher, fewer, asked)
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same.count(False) <= 1
        moved = whole - exact_sum(fewer)
        assert int((moved**2).sum()) <= sensitivity_of(20) ** 2


WILD = st.floats(width=64) | st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0, 1 + 1e-15])


@settings(deadline=None, max_examples=200)
@given(
    arrays.arrays(float, st.tuples(st.integers(0, 4), st.integers(2, 5)), elements=WILD),
    st.integers(2, 5),
)
def test_whatever_a_teacher_answers_its_integers_keep_the_bound(
    given: np.ndarray, classes: int
) -> None:
    shape = (len(given), classes)
    integers = on_label_grid(given, shape)
    assert integers.shape == shape
    assert integers.dtype == np.int64
    assert (integers >= 0).all()
    assert (integers.sum(axis=1) <= LARGEST_SUM).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(2, 2000))
def test_probabilities_lose_less_than_a_step_each(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(classes, 0.1), size=3)
    shares[0] = np.eye(classes)[classes // 2]
    integers = on_label_grid(shares, shares.shape)
    assert (integers.sum(axis=1) <= LARGEST_SUM).all()
    np.testing.assert_allclose(integers / LARGEST_SUM, shares, atol=2 / LARGEST_SUM)


@pytest.mark.parametrize("num_queries", [1, 2, 3, 50, 300, 99_999])
def test_the_sensitivity_is_rounded_up_to_the_next_integer(num_queries: int) -> None:
    squared = 2 * num_queries * LARGEST_SUM**2
    assert (sensitivity_of(num_queries) - 1) ** 2 < squared <= sensitivity_of(num_queries) ** 2


def test_two_opposite_answers_reach_the_sensitivity() -> None:
    """The bound is tight, so nothing smaller would do."""
    first = on_label_grid(np.tile([1.0, 0.0], (8, 1)), (8, 2))
    second = on_label_grid(np.tile([0.0, 1.0], (8, 1)), (8, 2))
    assert ((first - second) ** 2).sum() == 2 * 8 * LARGEST_SUM**2


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("queries", [1, 300, 10_000])
def test_the_plan_costs_what_was_asked_and_no_more(proxy, epsilon: float, queries: int) -> None:
    """PRIVACY rule 9."""
    asked = ask(proxy, "sharded", epsilon=epsilon, queries=queries)
    plan = Sharded().plan(asked, proxy, rows_at_least=20)
    num_queries = min(queries, len(proxy.rows))
    rho_answers = num_queries * (LARGEST_SUM / plan.scale) ** 2
    assert plan.num_queries == num_queries
    assert plan.event == ComposedDpEvent(
        [
            ZCDpEvent(0.5 / plan.count_scale**2),
            ZCDpEvent(0.5 * (sensitivity_of(num_queries) / plan.scale) ** 2),
        ]
    )
    assert plan.event.events[1].rho == pytest.approx(rho_answers, rel=1e-4)
    assert epsilon * 0.9999 < epsilon_of(plan.event, 1e-5, Sharded.adjacency) <= epsilon


def test_the_plan_is_made_without_private_rows() -> None:
    assert "rows" not in inspect.signature(Sharded.plan).parameters


def test_no_method_takes_a_random_generator() -> None:
    """PRIVACY rule 14."""
    for name in ("plan", "release", "label", "response"):
        parameters = set(inspect.signature(getattr(Sharded, name)).parameters)
        assert not parameters & {"rng", "seed", "random", "generator"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shards": 0}, "shards=0"),
        ({"queries": 0}, "queries=0"),
        ({"teacher": "logistik"}, "did you mean 'logistic'"),
        ({"teacher": "sklearn.svm:LinearSVC"}, "without predict_proba"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_is_charged(proxy, changes, says) -> None:
    with pytest.raises(PolicyRefusal, match=says):
        Sharded().plan(ask(proxy, "sharded", **changes), proxy, rows_at_least=20)


@pytest.fixture
def seen(monkeypatch) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Spy on the sampler: what went in, what came out, and the scale."""
    calls: list[tuple[np.ndarray, np.ndarray, float]] = []
    real = sharded.add_noise

    def spy(exact, scale):
        noised = real(exact, scale)
        calls.append((exact, noised, scale))
        return noised

    monkeypatch.setattr(sharded, "add_noise", spy)
    return calls


def test_the_sum_of_answers_and_the_count_are_all_that_is_noised(proxy, seen) -> None:
    rows = make_rows(200, 3)
    release, _ = answer(rows, proxy, teacher="mlp")
    (answers, _, scale), (count, noised_count, count_scale) = seen
    plan = Sharded().plan(
        ask(proxy, "sharded", num_classes=3, queries=50, shards=8), proxy, rows_at_least=20
    )
    assert (scale, count_scale) == (plan.scale, plan.count_scale)
    assert answers.shape == (50, 3)
    assert (answers.sum(axis=1) <= 8 * LARGEST_SUM).all()
    assert (answers.sum(axis=1) > 8 * (LARGEST_SUM - 3)).all()
    assert count.tolist() == [200]
    assert release.parameters == {"noised-count": float(max(noised_count[0], 20))}
    assert release.event == plan.event


def test_where_rows_name_units_units_are_counted(proxy, seen) -> None:
    answer(replace(make_rows(200), units=np.arange(200) // 5), proxy)
    _, (count, _, _) = seen
    assert count.tolist() == [40]


@pytest.mark.statistical
@pytest.mark.parametrize(("halved", "accepted"), [(1.0, True), (0.5, False)])
def test_the_noise_of_a_release_has_the_law_that_its_event_states(
    proxy, seen, halved: float, accepted: bool
) -> None:
    """Two-sided chi-square of 12 releases of 100 integers; false alarm 1e-6.

    Half the noise has a quarter of the variance: the statistic is then below 400 of 1,200 with
    probability 1 - 1e-12, and the threshold lies near 970.
    """
    asked = ask(proxy, "sharded", shards=2, queries=50)
    plan = Sharded().plan(asked, proxy, rows_at_least=20)
    stated = sensitivity_of(50) / math.sqrt(2 * plan.event.events[1].rho)
    for _ in range(12):
        Sharded().release(make_rows(30), proxy, replace(plan, scale=plan.scale * halved))
    noise = np.concatenate([(out - into).ravel() for into, out, _ in seen if into.size > 1])
    statistic = np.sum((noise / stated) ** 2)
    tail = min(stats.chi2.cdf(statistic, noise.size), stats.chi2.sf(statistic, noise.size))
    assert bool(2 * tail > FALSE_ALARM) is accepted


@pytest.mark.parametrize("teacher", BUILT_IN)
@pytest.mark.parametrize("num_classes", [2, 5])
def test_an_empty_site_answers_noise(proxy, teacher: str, num_classes: int) -> None:
    """PRIVACY rule 3."""
    release, _ = answer(without_rows(num_classes), proxy, teacher=teacher)
    assert release.codes.shape == (400, num_classes - 1)


@pytest.mark.parametrize("teacher", BUILT_IN)
def test_a_site_of_one_class_and_more_shards_than_rows_answers(proxy, teacher: str) -> None:
    """PRIVACY rule 3."""
    rows = replace(make_rows(30), labels=np.ones(30, np.int64))
    release, _ = answer(rows, proxy, teacher=teacher, shards=50)
    assert release.codes.shape == (400, 1)


def test_records_with_impossible_labels_count_as_nothing(proxy, monkeypatch) -> None:
    """PRIVACY rule 3."""
    monkeypatch.setattr(sharded, "add_noise", lambda sums, scale: sums)
    monkeypatch.setattr(sharded, "deal", lambda rows, shards: deal_by_key(rows, shards, KEY))
    good = make_rows(80)
    bad = LabelledRows(
        columns=COLUMNS,
        rows=np.concatenate([good.rows[:3] * np.inf, good.rows]).astype(np.float32),
        labels=np.concatenate([[-1, 2, 99], good.labels]),
        num_classes=2,
    )
    release, same = answer(good, proxy)[0], answer(bad, proxy)[0]
    np.testing.assert_array_equal(release.codes, same.codes)
    assert same.parameters == {"noised-count": 80.0}


class FailsOnSevens:
    """Learns public rows; fails, or answers nonsense, on some private ones."""

    def fit(self, features, labels):
        if (features == 7).any():
            raise RuntimeError("these rows are secret")
        self.nonsense = (features == 8).any()
        return self

    def predict_proba(self, features):
        if self.nonsense:
            return np.full((len(features), 2), np.nan)
        return np.tile([0.25, 0.75], (len(features), 1))


@pytest.mark.parametrize("value", [7, 8])
def test_a_teacher_that_fails_answers_uniform(proxy, seen, value: int) -> None:
    """PRIVACY rule 3."""
    rows = make_rows(100)
    values = rows.rows.copy()
    values[0] = value
    answer(replace(rows, rows=values), proxy, teacher=f"{__name__}:FailsOnSevens", shards=4)
    exact = seen[0][0]
    quarter = LARGEST_SUM // 4
    np.testing.assert_array_equal(exact, np.tile([5 * quarter, 11 * quarter], (50, 1)))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_small_federation_learns_the_classes(num_classes: int) -> None:
    proxy = make_proxy(600)
    mechanism, basis = Sharded(), proxy_basis(proxy)
    asked = ask(proxy, "sharded", epsilon=8.0, num_classes=num_classes, teacher="mlp", shards=120)
    plan = mechanism.plan(asked, proxy, rows_at_least=20)
    releases = [
        mechanism.release(make_rows(4_000, num_classes, seed), proxy, plan)[0] for seed in (3, 4)
    ]
    responses = [mechanism.response(asked, release, proxy) for release in releases]
    ensemble = build_ensemble(releases, responses, basis)
    fresh = make_rows(2_000, num_classes, seed=2)

    def auc(scores: np.ndarray) -> float:
        shares = scores[:, 1] if num_classes == 2 else scores
        return float(roc_auc_score(fresh.labels, shares, multi_class="ovr"))

    best = true_logits(fresh.rows, num_classes)
    ceiling = auc(probabilities(best[:, 1:] - best[:, :1]))
    assert auc(probabilities(ensemble.label(fresh.rows))) > ceiling - 0.03


def test_the_teacher_says_on_the_proxy_set_what_was_released(proxy) -> None:
    release, teacher = answer(make_rows(400, 3), proxy, epsilon=20.0, teacher="mlp")
    on_proxy = Sharded().label(teacher, proxy, proxy).log_odds
    np.testing.assert_allclose(release.log_odds, np.clip(on_proxy, -8, 8), atol=2e-4)


@pytest.mark.statistical
def test_the_response_predicts_the_noise(monkeypatch) -> None:
    """The law that the server inverts, against the spread of 60 releases of the same shards.

    Along the leading eigenvectors the mean squared deviation over its prediction, averaged over 60
    releases and 10 directions, has a relative error of about sqrt(2 / 600) = 6%; the bounds allow
    for the linearisation too. A halved or doubled variance fails.
    """
    proxy = ProxySet(schema=numbers(COLUMNS), rows=make_rows(400, seed=5).rows)
    mechanism, basis = Sharded(), proxy_basis(proxy)
    asked = ask(proxy, "sharded", epsilon=4.0, shards=100, queries=400)
    plan = mechanism.plan(asked, proxy, rows_at_least=20)
    rows = make_rows(3_000)
    kept = sum_of_answers(
        asked,
        [(rows.rows[i], rows.labels[i]) for i in deal_by_key(rows, 100, KEY)],
        proxy.rows,
    )
    monkeypatch.setattr(sharded, "sum_of_answers", lambda *_: kept)
    releases = [mechanism.release(rows, proxy, plan) for _ in range(60)]
    weights = np.stack([teacher.weights for _, teacher in releases])
    along = np.einsum("ij,sjk->sik", basis.eigenvectors.T, weights)
    # Weights of two classes sum to zero, so both together carry the noise of one.
    spread = along.var(axis=0, ddof=1).sum(axis=1)
    predicted = mechanism.response(asked, releases[0][0], proxy).noise_variance
    ratio = (spread / predicted)[-10:].mean()
    assert 0.6 < ratio < 1.6
