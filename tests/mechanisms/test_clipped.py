import inspect
from collections.abc import Callable

import numpy as np
import pytest
from dp_accounting import ZCDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.distill.target import build_ensemble
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.mechanisms import clipped, mechanism_named
from fedistill.mechanisms.clipped import Clipped, SiteClipped, clip_matrix, teacher_log_odds
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Unit
from tests.mechanisms.toy import COLUMNS, ask, make_proxy, make_rows, true_logits, without_rows

FALSE_ALARM = 1e-6
STEP = 2.0**-16


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


@pytest.fixture
def sums(monkeypatch) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Spy on the sampler: what went in, what came out, and the scale."""
    seen = []
    real = clipped.add_noise

    def spy(exact, scale):
        noised = real(exact, scale)
        seen.append((exact, noised, scale))
        return noised

    monkeypatch.setattr(clipped, "add_noise", spy)
    return seen


class Failing:
    """A teacher that answers whatever it is told to."""

    def __init__(self, answer: Callable[[int], np.ndarray]) -> None:
        self.answer = answer

    def fit(self, features, labels):
        return self

    def predict_proba(self, features):
        return self.answer(len(features))


def answer(rows: LabelledRows, proxy: ProxySet, mechanism: Clipped | None = None, **changes):
    mechanism = mechanism or Clipped()
    asked = ask(proxy, mechanism.name, **({"num_classes": rows.num_classes} | changes))
    return mechanism.release(rows, proxy, mechanism.plan(asked, proxy, rows_at_least=20))


def squared_distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(((one.astype(object) - other.astype(object)) ** 2).sum())


def test_it_is_found_by_name() -> None:
    assert type(mechanism_named("clipped")) is Clipped


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.floats(1e-6, 8.0),
    clip_norm=st.floats(2.0**-10, 1e4),
)
def test_any_two_matrices_are_at_most_twice_the_clip_apart(seed, size, clip_norm: float) -> None:
    """The sensitivity of PRIVACY's table: 2R for a record, R for a site; exact integers."""
    random = np.random.default_rng(seed)
    clip = int(clip_norm / STEP)
    one = clip_matrix(np.clip(random.normal(size=(30, 3)) * size, -8, 8), clip)
    other = clip_matrix(-np.clip(random.normal(size=(30, 3)) * 8, -8, 8), clip)
    assert squared_distance(one, other) <= (2 * clip) ** 2
    assert squared_distance(one, 0 * one) <= clip**2
    assert squared_distance(clip_matrix(-one * STEP, clip), one) <= (2 * clip) ** 2


def test_the_bound_is_tight() -> None:
    large = np.full((30, 3), 8.0)
    clip = int(5.0 / STEP)
    apart = squared_distance(clip_matrix(large, clip), clip_matrix(-large, clip))
    assert apart > 0.999 * (2 * clip) ** 2


def test_small_matrices_are_not_clipped() -> None:
    small = np.random.default_rng(0).normal(size=(30, 3))
    integers = clip_matrix(small, int(100.0 / STEP))
    np.testing.assert_allclose(integers * STEP, small, atol=STEP)


@pytest.mark.parametrize("mechanism", [Clipped(), SiteClipped()])
def test_what_is_noised_stays_within_the_clip(proxy, sums, mechanism: Clipped) -> None:
    rows = make_rows(80)
    answer(rows, proxy, mechanism, clip_norm=5.0)
    answer(rows.take(np.arange(40)), proxy, mechanism, clip_norm=5.0)
    (one, _, scale), (other, _, same) = sums
    clip = int(5.0 / STEP)
    assert scale == same
    assert 0.99 * clip**2 < squared_distance(one, 0 * one) <= clip**2
    assert 0 < squared_distance(one, other) <= (2 * clip) ** 2


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 50.0])
@pytest.mark.parametrize(("mechanism", "matrices"), [(Clipped(), 2), (SiteClipped(), 1)])
def test_the_plan_costs_what_was_asked_and_no_more(proxy, epsilon, mechanism, matrices) -> None:
    """PRIVACY rule 9."""
    plan = mechanism.plan(ask(proxy, mechanism.name, epsilon=epsilon), proxy, rows_at_least=20)
    sensitivity = matrices * int(100.0 / STEP)
    assert plan.event == ZCDpEvent(0.5 * (sensitivity / plan.scale) ** 2)
    assert epsilon * 0.9999 <= epsilon_of(plan.event, 1e-5, mechanism.adjacency) <= epsilon


def test_site_level_says_so_and_takes_half_the_noise(proxy) -> None:
    record = Clipped().plan(ask(proxy, "clipped"), proxy, rows_at_least=20)
    site = SiteClipped().plan(ask(proxy, "clipped-site"), proxy, rows_at_least=20)
    assert Clipped.units == (Unit.RECORD, Unit.GROUP)
    assert SiteClipped.units == (Unit.SITE,)
    assert site.scale == pytest.approx(record.scale / 2)


@pytest.mark.statistical
def test_the_noise_has_the_scale_that_the_event_states(proxy, sums) -> None:
    """Two-sided chi-square test of the variance; false alarm 1e-6, power against half the noise
    above 1 - 1e-9: 2,000 samples then sum to 500 +- 16 and the bound lies above 1,700.
    """
    for _ in range(5):
        answer(make_rows(30), proxy)
    noise = np.concatenate([(noised - exact).ravel() for exact, noised, _ in sums])
    event = Clipped().plan(ask(proxy, "clipped"), proxy, rows_at_least=20).event
    scale = 2 * int(100.0 / STEP) / np.sqrt(2 * event.rho)

    def fits(samples: np.ndarray) -> bool:
        statistic = float(np.sum((samples / scale) ** 2))
        tails = stats.chi2.cdf(statistic, len(samples)), stats.chi2.sf(statistic, len(samples))
        return 2 * min(tails) > FALSE_ALARM

    assert len(noise) == 2_000
    assert fits(noise)
    assert not fits(noise / 2)


def test_the_plan_is_made_without_private_rows_and_nothing_takes_a_generator() -> None:
    """PRIVACY rules 2 and 14."""
    assert "rows" not in inspect.signature(Clipped.plan).parameters
    for name in ("plan", "release", "label", "response"):
        parameters = set(inspect.signature(getattr(Clipped, name)).parameters)
        assert not parameters & {"rng", "seed", "random", "generator"}


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, 1e9, np.inf, np.nan])
def test_a_clip_out_of_bounds_is_refused(proxy, clip_norm: float) -> None:
    with pytest.raises(PolicyRefusal, match="clip-norm"):
        Clipped().plan(ask(proxy, "clipped", clip_norm=clip_norm), proxy, rows_at_least=20)


def test_an_unknown_teacher_is_refused_before_anything_is_charged(proxy) -> None:
    with pytest.raises(PolicyRefusal, match="teacher='boostin'"):
        Clipped().plan(ask(proxy, "clipped", teacher="boostin"), proxy, rows_at_least=20)


def one_class(num_classes: int) -> LabelledRows:
    rows = make_rows(50, num_classes)
    return LabelledRows(
        columns=COLUMNS, rows=rows.rows, labels=rows.labels * 0, num_classes=num_classes
    )


def impossible(num_classes: int) -> LabelledRows:
    rows = make_rows(50, num_classes)
    return LabelledRows(
        columns=COLUMNS,
        rows=rows.rows * np.float32(np.inf),
        labels=np.where(np.arange(50) % 2, 99, -1),
        num_classes=num_classes,
    )


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("site", [without_rows, one_class, impossible])
def test_every_site_answers(proxy, site: Callable[[int], LabelledRows], num_classes: int) -> None:
    """PRIVACY rule 3: a degenerate site does not raise, and its answer is complete."""
    release, teacher = answer(site(num_classes), proxy)
    assert release.codes.shape == (400, num_classes - 1)
    assert np.isfinite(teacher.weights).all()
    asked = ask(proxy, "clipped", num_classes=num_classes)
    for values in vars(Clipped().response(asked, release, proxy)).values():
        assert np.isfinite(values).all()
        assert (values > 0).all()


def raising(num_rows: int) -> np.ndarray:
    raise RuntimeError(f"the patient in row {num_rows} is odd")


@pytest.mark.parametrize(
    "wrong",
    [
        raising,
        lambda n: np.ones((n, 7)),
        lambda n: np.ones(n),
        lambda n: np.full((n, 2), np.nan),
        lambda n: np.full((n, 2), -np.inf),
        lambda n: np.array([["a", "b"]] * n),
    ],
)
def test_a_teacher_that_fails_answers_uniform(proxy, monkeypatch, wrong) -> None:
    """PRIVACY rule 3."""
    monkeypatch.setattr(clipped, "teacher_named", lambda name, classes: Failing(wrong))
    log_odds = teacher_log_odds(make_rows(20), proxy, ask(proxy, "clipped"))
    np.testing.assert_array_equal(log_odds, np.zeros((400, 1)))


def test_a_teacher_that_is_sure_is_bounded(proxy, monkeypatch) -> None:
    sure = Failing(lambda n: np.tile([1.0, 0.0], (n, 1)))
    monkeypatch.setattr(clipped, "teacher_named", lambda name, classes: sure)
    log_odds = teacher_log_odds(make_rows(20), proxy, ask(proxy, "clipped"))
    np.testing.assert_array_equal(log_odds, np.full((400, 1), -8.0))


def test_a_record_with_an_impossible_label_counts_as_nothing(proxy) -> None:
    good = make_rows(80)
    bad = LabelledRows(
        columns=COLUMNS,
        rows=np.concatenate([good.rows[:3], good.rows]),
        labels=np.concatenate([[-1, 2, 99], good.labels]),
        num_classes=2,
    )
    asked = ask(proxy, "clipped")
    np.testing.assert_array_equal(
        teacher_log_odds(good, proxy, asked), teacher_log_odds(bad, proxy, asked)
    )


def ensemble_auc(proxy: ProxySet, epsilon: float) -> float:
    """Of three sites of 1,000 rows."""
    asked = ask(proxy, "clipped", epsilon=epsilon, clip_norm=20.0)
    releases = [
        answer(make_rows(1_000, seed=10 + site), proxy, epsilon=epsilon, clip_norm=20.0)[0]
        for site in range(3)
    ]
    responses = [Clipped().response(asked, release, proxy) for release in releases]
    ensemble = build_ensemble(releases, responses, proxy_basis(proxy), weights="agreement")
    fresh = make_rows(2_000, seed=3)
    return float(roc_auc_score(fresh.labels, ensemble.label(fresh.rows)[:, 0]))


def test_a_huge_epsilon_gives_back_the_teacher(proxy) -> None:
    fresh = make_rows(2_000, seed=3)
    best = roc_auc_score(fresh.labels, np.diff(true_logits(fresh.rows, 2))[:, 0])
    assert ensemble_auc(proxy, 2_000.0) > best - 0.02


def test_an_honest_epsilon_gives_little() -> None:
    """What the docstring admits, and why this is the baseline."""
    assert np.mean([ensemble_auc(make_proxy(), 1.0) for _ in range(5)]) < 0.8


def test_labels_of_other_rows_agree_with_the_release(proxy) -> None:
    release, teacher = answer(make_rows(500), proxy, epsilon=100.0)
    on_proxy = Clipped().label(teacher, proxy, ProxySet(schema=numbers(COLUMNS), rows=proxy.rows))
    # A release holds no log-odds beyond +-8 nats.
    within = np.clip(on_proxy.log_odds, -8, 8)
    np.testing.assert_allclose(release.log_odds, within, atol=2e-4)


@pytest.mark.statistical
@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_response_predicts_the_noise(proxy, num_classes: int) -> None:
    """The law that the server inverts, against the spread of 40 releases of one data set.

    Over the 20 leading directions the mean ratio has a relative error of at most sqrt(2 / 800) =
    5%. A halved or doubled variance fails.
    """
    rows, changes = make_rows(500, num_classes), {"epsilon": 20.0}
    answers = [answer(rows, proxy, **changes) for _ in range(40)]
    vectors = proxy_basis(proxy).eigenvectors
    along = np.stack([vectors.T @ teacher.weights for _, teacher in answers])
    spread = along.var(axis=0, ddof=1).sum(axis=1) / (num_classes - 1)
    asked = ask(proxy, "clipped", num_classes=num_classes, **changes)
    predicted = Clipped().response(asked, answers[0][0], proxy)
    ratio = (spread / predicted.noise_variance)[-20:].mean()
    assert 0.75 < ratio < 1.25
