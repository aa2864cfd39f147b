"""Confident-GNMax: which rows are answered, at what cost, and what leaves of the others."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mpmath import mpf
from scipy import stats

from fedistill.codec import decode_release, encode_release
from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.mechanisms import confident, sharded
from fedistill.mechanisms.confident import (
    MASK,
    MOST_CHECKS,
    Confidence,
    answer_confidently,
    chosen_rows,
    confidence_for,
    state_mask,
    stated_rows,
)
from fedistill.mechanisms.shard_answers import LARGEST_SUM, on_label_grid, sum_of_votes, votes
from fedistill.mechanisms.sharded import Sharded, ShardedPlan
from fedistill.mechanisms.shards import deal_by_key
from fedistill.privacy.accountant import calibrate_rho, epsilon_of
from tests.mechanisms.toy import ask, make_proxy, make_rows, without_rows
from tests.privacy.oracles import best_epsilon

FALSE_ALARM = 1e-6
KEY = b"k" * 32
DELTA = 1e-5
CONFIDENT = {"answers": "confident", "shards": 8, "queries": 50, "answers_at_most": 10}


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


def plan_of(proxy: ProxySet, **changes: object) -> ShardedPlan:
    asked = ask(proxy, "sharded", **(CONFIDENT | changes))
    return Sharded().plan(asked, proxy, rows_at_least=20)


def make_confidence(**changes: object) -> Confidence:
    fields: dict[str, object] = {
        "num_queries": 40,
        "votes_at_least": 6,
        "answers_at_most": 5,
        "check_scale": 3.0,
        "vote_scale": 2.0,
    }
    return Confidence(**(fields | changes))  # type: ignore[arg-type]


def tables(rows: int, classes: int, teachers: int) -> st.SearchStrategy[np.ndarray]:
    """Answers of each teacher, in steps of 1/G: (teachers, rows, classes)."""
    return arrays.arrays(
        np.int64,
        (teachers, rows, classes),
        elements=st.integers(0, LARGEST_SUM // classes) | st.sampled_from([0, 1]),
    )


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(2, 5))
def test_one_teacher_moves_largest_counts_and_counts_by_at_most_the_sensitivity(
    data: st.DataObject, classes: int
) -> None:
    """PRIVACY's table, in exact integers, whatever the teacher answered before and after."""
    before = data.draw(tables(12, classes, 4))
    after = before.copy()
    after[2] = data.draw(tables(12, classes, 1))[0]
    left, right = (np.sum([votes(each) for each in table], axis=0) for table in (before, after))
    checks = left.max(axis=1) - right.max(axis=1)
    assert np.abs(checks).max() <= 1
    assert int((checks**2).sum()) <= 12
    moved = ((left - right) ** 2).sum(axis=1)
    assert moved.max() <= 2
    for chosen in (slice(0, 5), [1, 3, 11], slice(0, 0)):
        rows = moved[chosen]
        assert int(rows.sum()) <= 2 * len(rows)


def test_opposite_teachers_reach_both_sensitivities() -> None:
    """The bounds are tight, so nothing smaller would do."""
    others = np.tile([3, 2], (7, 1))
    first, second = others + np.tile([1, 0], (7, 1)), others + np.tile([0, 1], (7, 1))
    assert ((first - second) ** 2).sum() == 2 * 7
    assert ((first.max(axis=1) - second.max(axis=1)) ** 2).sum() == 7


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), teacher=st.sampled_from(["logistic", "mlp"]))
def test_a_record_moves_the_votes_by_at_most_one_teachers(seed: int, teacher: str) -> None:
    rows = replace(make_rows(60, 3, seed), units=np.arange(60))
    asked = make_rows(20, seed=1).rows
    question = ask(make_proxy(20), "sharded", teacher=teacher, num_classes=3, shards=5)

    def exact(given: LabelledRows) -> np.ndarray:
        shards = [(given.rows[i], given.labels[i]) for i in deal_by_key(given, 5, KEY)]
        return sum_of_votes(question, shards, asked)

    whole = exact(rows)
    removed = exact(rows.take(np.flatnonzero(np.arange(60) != 17)))
    labels = rows.labels.copy()
    labels[17] = (labels[17] + 1) % 3
    for other in (removed, exact(replace(rows, labels=labels))):
        assert ((whole - other) ** 2).sum(axis=1).max() <= 2
        assert np.abs(whole.max(axis=1) - other.max(axis=1)).max() <= 1


@pytest.mark.parametrize(
    ("answer", "vote"),
    [
        ([0.7, 0.2, 0.1], [1, 0, 0]),
        ([0.2, 0.4, 0.4], [0, 0, 0]),
        ([1 / 3, 1 / 3, 1 / 3], [0, 0, 0]),
        ([np.nan, 1.0, 0.0], [0, 0, 0]),
        ([-1.0, 2.0, 0.0], [0, 0, 0]),
    ],
)
def test_a_teacher_votes_once_or_abstains(answer: list[float], vote: list[int]) -> None:
    """PRIVACY rule 3: one that answers uniform, or nonsense, favours no class."""
    given = np.array([answer])
    assert votes(on_label_grid(given, given.shape)).tolist() == [vote]


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize(("queries", "most"), [(1, 1), (300, 100), (400, 10_000)])
def test_the_charge_is_that_of_every_check_and_every_answer_that_may_be_given(
    proxy, epsilon: float, queries: int, most: int
) -> None:
    """Against PRIVACY's closed form, N a / (2 s1^2) + A a / s2^2, converted independently."""
    plan = plan_of(proxy, epsilon=epsilon, queries=queries, answers_at_most=most)
    assert plan.confidence is not None
    checks = queries / (2 * mpf(plan.confidence.check_scale) ** 2)
    answers = min(most, queries) / mpf(plan.confidence.vote_scale) ** 2
    count = 1 / (2 * mpf(plan.count_scale) ** 2)
    stated = [mpf(part.rho) for part in leaves(plan.event)]
    for part, expected in zip(stated, (count, checks, answers), strict=True):
        assert abs(part - expected) < expected * mpf(1e-15)
    charged = epsilon_of(plan.event, DELTA, Sharded.adjacency)
    assert charged == pytest.approx(best_epsilon(float(sum(stated)), DELTA), rel=1e-5)
    assert epsilon * 0.9999 < charged <= epsilon


def leaves(event) -> list:
    """The releases that a composed event lists."""
    return (
        [leaf for part in event.events for leaf in leaves(part)]
        if hasattr(event, "events")
        else [event]
    )


def test_the_published_run_costs_more_without_its_data() -> None:
    """Papernot et al. 2018, MNIST: scales 150 and 40, 286 answers, delta 1e-5.

    Their 1.97 holds for their votes alone. Without them the answers come to 2.64, and with the 286
    checks that there were at least to 2.69.
    """
    published = make_confidence(
        num_queries=286, answers_at_most=286, check_scale=150.0, vote_scale=40.0
    )
    charged = epsilon_of(published.event, DELTA, Sharded.adjacency)
    assert charged == pytest.approx(best_epsilon(286 / 45_000 + 286 / 1_600, DELTA), rel=1e-5)
    assert 2.69 < charged < 2.70


def test_the_charge_does_not_depend_on_what_was_answered(proxy) -> None:
    plan = plan_of(proxy, epsilon=50.0)
    none, _ = Sharded().release(without_rows(), proxy, plan)
    some, _ = Sharded().release(make_rows(400), proxy, plan)
    assert none.event == some.event == plan.event
    assert len(answered(some, plan)) > len(answered(none, plan))


def answered(release, plan: ShardedPlan) -> np.ndarray:
    assert plan.confidence is not None
    return stated_rows(release.parameters, plan.confidence)


@settings(deadline=None, max_examples=100)
@given(arrays.arrays(np.int64, 40, elements=st.integers(-50, 50)), st.integers(1, 60))
def test_it_answers_the_first_rows_that_pass_and_stops(noised: np.ndarray, most: int) -> None:
    confidence = make_confidence(answers_at_most=most)
    expected = []
    for row, largest in enumerate(noised.tolist()):
        if largest >= confidence.votes_at_least and len(expected) < most:
            expected.append(row)
    assert chosen_rows(noised, confidence).tolist() == expected


@pytest.fixture
def seen(monkeypatch) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Spy on the sampler: what went in, what came out, and the scale."""
    calls: list[tuple[np.ndarray, np.ndarray, float]] = []
    real = confident.add_noise

    def spy(exact, scale):
        noised = real(exact, scale)
        calls.append((exact, noised, scale))
        return noised

    monkeypatch.setattr(confident, "add_noise", spy)
    return calls


def test_of_an_unanswered_row_only_its_largest_count_meets_the_noise(seen) -> None:
    table = np.stack([np.arange(40) % 9, 8 - np.arange(40) % 9], axis=1)
    confidence = make_confidence()
    rows, noised = answer_confidently(table, confidence)
    (checks, noised_checks, s1), (counts, noised_counts, s2) = seen
    np.testing.assert_array_equal(checks, table.max(axis=1))
    np.testing.assert_array_equal(rows, chosen_rows(noised_checks, confidence))
    np.testing.assert_array_equal(counts, table[rows])
    np.testing.assert_array_equal(noised, noised_counts)
    assert (s1, s2) == (3.0, 2.0)
    assert len(rows) <= 5


def test_a_release_is_a_function_of_the_noised_counts_of_its_mask(proxy, monkeypatch) -> None:
    """Codes of all rows are post-processing: equal noised answers give equal codes."""
    plan = plan_of(proxy, num_classes=3)
    kept = (np.array([3, 4, 30]), np.array([[9, 1, 0], [-2, 8, 1], [1, 0, 7]]))
    monkeypatch.setattr(sharded, "answer_confidently", lambda *_: kept)
    first, _ = Sharded().release(make_rows(200, 3), proxy, plan)
    second, _ = Sharded().release(without_rows(3), proxy, plan)
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(answered(first, plan), kept[0])
    assert first.codes.any()


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, MOST_CHECKS - 1)))
def test_the_mask_survives_its_release(rows: set[int]) -> None:
    stated = state_mask(np.array(sorted(rows), np.int64))
    assert tuple(stated) == MASK
    assert all(1 <= value <= 2**48 for value in stated.values())
    whole = make_confidence(num_queries=MOST_CHECKS, answers_at_most=MOST_CHECKS)
    assert stated_rows(stated, whole).tolist() == sorted(rows)


def test_a_mask_of_more_than_was_asked_is_cut(proxy) -> None:
    """A site may send any number that the codec takes."""
    greedy = dict.fromkeys(MASK, 1e15) | {MASK[1]: 1.5}
    rows = stated_rows(greedy, make_confidence(num_queries=100, answers_at_most=100))
    assert rows.size <= 100
    assert rows.max(initial=0) < 100
    assert not ((rows >= 48) & (rows < 96)).any()


def test_the_mask_crosses_the_wire_at_one_length(proxy) -> None:
    """PRIVACY rule 4."""
    plan = plan_of(proxy, epsilon=50.0)
    sizes = set()
    for rows in (without_rows(), make_rows(400)):
        release, _ = Sharded().release(rows, proxy, plan)
        encoded = encode_release(release)
        sizes.add(len(encoded))
        again = decode_release(
            encoded,
            question=plan.question,
            num_rows=len(proxy.rows),
            event=plan.event,
            parameters=Sharded.parameters,
        )
        assert again.parameters == release.parameters
    assert len(sizes) == 1


@pytest.mark.statistical
@pytest.mark.parametrize("which", ["checks", "counts"])
@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (0.5, False)])
def test_both_noises_have_the_law_that_the_event_states(
    seen, which: str, factor: float, accepted: bool
) -> None:
    """Two-sided chi-square of 1,200 integers each; false alarm 1e-6.

    Half the noise has a quarter of the variance: the statistic is then below 400 with probability
    1 - 1e-12, and the threshold lies near 970.
    """
    confidence = confidence_for(
        ask(make_proxy(40), "sharded", **CONFIDENT), 40, calibrate_rho(1.0, DELTA)
    )
    table = np.tile([60, 0], (40, 1))  # all rows pass: 8 teachers have no 60 votes
    checks, answers = (part.rho for part in confidence.event.events)
    stated = math.sqrt(
        (40 if which == "checks" else 2 * 10) / (2 * (checks, answers)[which == "counts"])
    )
    drawn = replace(
        confidence,
        votes_at_least=-10_000,
        check_scale=confidence.check_scale * factor,
        vote_scale=confidence.vote_scale * factor,
    )
    for _ in range(60):
        answer_confidently(table, drawn)
    calls = seen[which == "counts" :: 2]
    noise = np.concatenate([(out - into).ravel() for into, out, _ in calls])[:1_200]
    assert noise.size == 1_200
    statistic = np.sum((noise / stated) ** 2)
    tail = min(stats.chi2.cdf(statistic, 1_200), stats.chi2.sf(statistic, 1_200))
    assert bool(2 * tail > FALSE_ALARM) is accepted


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("teacher", ["logistic", "boosting", "mlp"])
def test_degenerate_sites_answer(proxy, teacher: str, num_classes: int) -> None:
    """PRIVACY rule 3: no rows, one class, fewer rows than shards."""
    mechanism = Sharded()
    plan = plan_of(proxy, num_classes=num_classes, teacher=teacher, shards=20)
    one_class = make_rows(15, num_classes)
    for rows in (
        without_rows(num_classes),
        replace(one_class, labels=np.ones(15, np.int64)),
        replace(one_class, labels=np.full(15, 99)),
    ):
        release, _ = mechanism.release(rows, proxy, plan)
        assert release.codes.shape == (400, num_classes - 1)
        assert_sound(mechanism.response(plan.question, release, proxy))


def assert_sound(response) -> None:
    """What the server divides by is positive, and no gain is above one."""
    assert (response.gain > 0).all()
    assert (response.gain <= 1).all()
    for variance in (response.noise_variance, response.sampling_variance):
        assert np.isfinite(variance).all()
        assert (variance > 0).all()


def test_a_site_that_answers_no_row_says_nothing_and_counts_for_nothing(proxy, monkeypatch) -> None:
    nothing = (np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    monkeypatch.setattr(sharded, "answer_confidently", lambda *_: nothing)
    plan = plan_of(proxy, epsilon=8.0)
    release, teacher = Sharded().release(make_rows(300), proxy, plan)
    assert not release.codes.any()
    assert not teacher.weights.any()
    response = Sharded().response(plan.question, release, proxy)
    assert_sound(response)
    assert response.gain.max() < 0.01


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answers": "loud"}, "answers='loud' must be 'soft' or 'confident'"),
        ({"confidence": 0.0}, "confidence=0.0 must be above 0 and at most 1"),
        ({"confidence": 1.01}, "confidence=1.01"),
        ({"confidence": math.nan}, "confidence=nan"),
        ({"answers_at_most": 0}, "answers_at_most=0 must be at least 1"),
        ({"queries": MOST_CHECKS + 1}, f"queries={MOST_CHECKS + 1} must be at most {MOST_CHECKS}"),
        ({"queries": 0}, "queries=0"),
        ({"shards": 0}, "shards=0"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_is_charged(proxy, changes, says) -> None:
    with pytest.raises(PolicyRefusal, match=says):
        plan_of(proxy, **changes)


def test_neither_a_generator_nor_private_rows_reach_the_plan() -> None:
    """PRIVACY rule 14."""
    for function in (confidence_for, answer_confidently, chosen_rows):
        assert not set(inspect.signature(function).parameters) & {"rng", "seed", "generator"}
    assert set(inspect.signature(confidence_for).parameters) == {"question", "num_queries", "rho"}


@pytest.mark.parametrize(
    ("share", "shards", "needed"), [(0.8, 250, 200), (0.07, 100, 7), (0.5, 7, 4), (1.0, 3, 3)]
)
def test_the_threshold_is_a_share_of_the_teachers_rounded_up(proxy, share, shards, needed) -> None:
    """Papernot et al. 2018 ask 200 of 250."""
    plan = plan_of(proxy, confidence=share, shards=shards)
    assert plan.confidence is not None
    assert plan.confidence.votes_at_least == needed


@pytest.mark.statistical
def test_the_response_predicts_the_noise_of_chosen_rows(monkeypatch) -> None:
    """The law that the server inverts, against the spread of 60 releases of the same shards.

    As for soft answers in `test_sharded`; here every release chooses its own rows, which the bounds
    allow for. A halved or doubled variance fails.
    """
    proxy = make_proxy(300)
    mechanism, basis = Sharded(), proxy_basis(proxy)
    plan = plan_of(proxy, epsilon=2.0, shards=100, queries=300, answers_at_most=100)
    rows = make_rows(3_000)
    shards = [(rows.rows[i], rows.labels[i]) for i in deal_by_key(rows, 100, KEY)]
    kept = sum_of_votes(plan.question, shards, proxy.rows)
    monkeypatch.setattr(sharded, "sum_of_votes", lambda *_: kept)
    releases = [mechanism.release(rows, proxy, plan) for _ in range(60)]
    weights = np.stack([teacher.weights for _, teacher in releases])
    along = np.einsum("ij,sjk->sik", basis.eigenvectors.T, weights)
    spread = along.var(axis=0, ddof=1).sum(axis=1)
    laws = [mechanism.response(plan.question, release, proxy) for release, _ in releases]
    predicted = np.mean([law.noise_variance for law in laws], axis=0)
    assert 0.65 < (spread / predicted)[-10:].mean() < 1.6
