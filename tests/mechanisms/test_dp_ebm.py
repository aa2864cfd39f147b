import inspect
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent, ZCDpEvent
from interpret.utils import _preprocessor, _privacy
from interpret.utils._native import Native
from scipy import stats
from sklearn.metrics import roc_auc_score

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.errors import PolicyRefusal
from fedistill.features.public_ranks import PublicRanks
from fedistill.mechanisms import (
    boosting_machines,
    dp_ebm,
    has_float_noise,
    mechanism_named,
    private_model,
)
from fedistill.mechanisms.boosting_machines import ROUNDS, Budget, train_and_answer
from fedistill.mechanisms.dp_ebm import DPEBM, MARGIN
from fedistill.privacy.accountant import epsilon_of
from tests.mechanisms.toy import COLUMNS, ask, make_proxy, make_rows, without_rows

FALSE_ALARM = 1e-6
ASKED = np.random.default_rng(9).random((50, 2))
BUDGET = Budget(epsilon=1.0, delta=1e-5, num_classes=2)


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


@pytest.fixture
def short(monkeypatch) -> None:
    """Few rounds: these tests are about what is shown to the machines."""
    monkeypatch.setattr(boosting_machines, "ROUNDS", 3)


def answer(rows: LabelledRows, proxy: ProxySet, **changes):
    asked = ask(proxy, "dp-ebm", **({"num_classes": rows.num_classes} | changes))
    return DPEBM().release(rows, proxy, DPEBM().plan(asked, proxy, rows_at_least=20))


def two_columns(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    rows = random.random((num_rows, 2))
    return rows, (rows[:, 0] > 0.5).astype(np.int64)


def test_it_is_found_by_name_and_says_that_its_noise_is_floating() -> None:
    assert type(mechanism_named("dp-ebm")) is DPEBM
    assert has_float_noise(DPEBM())


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_plan_costs_what_was_asked_and_no_more(proxy, epsilon, num_classes) -> None:
    """PRIVACY rule 9."""
    asked = ask(proxy, "dp-ebm", epsilon=epsilon, num_classes=num_classes)
    plan = DPEBM().plan(asked, proxy, rows_at_least=20)
    assert epsilon * 0.999 <= epsilon_of(plan.event, 1e-5, DPEBM.adjacency) <= epsilon


@pytest.mark.parametrize(("num_classes", "machines"), [(2, 1), (5, 5)])
def test_the_event_states_every_noised_count_and_sum(proxy, num_classes, machines) -> None:
    asked = ask(proxy, "dp-ebm", num_classes=num_classes)
    plan = DPEBM().plan(asked, proxy, rows_at_least=20)
    count, binning, boosting = plan.event.events
    s1, s2 = boosting_machines.noise_multipliers(plan.budget.epsilon, 1e-5, 4)
    assert count == ZCDpEvent(0.5 / plan.count_scale**2)
    assert binning == SelfComposedDpEvent(GaussianDpEvent(s1), machines * 4)
    assert boosting == SelfComposedDpEvent(GaussianDpEvent(s2), machines * 4 * ROUNDS)


def test_the_charge_is_at_least_the_exact_gaussian_dp_guarantee(proxy) -> None:
    """All sums of a machine together are mu-GDP (Dong, Roth and Su 2022, Corollary 3.3)."""
    plan = DPEBM().plan(ask(proxy, "dp-ebm"), proxy, rows_at_least=20)
    s1, s2 = boosting_machines.noise_multipliers(plan.budget.epsilon, 1e-5, 4)
    mu = math.sqrt(4 / s1**2 + 4 * ROUNDS / s2**2 + 1 / plan.count_scale**2)
    delta = stats.norm.cdf(-1 / mu + mu / 2) - math.e * stats.norm.cdf(-1 / mu - mu / 2)
    assert delta <= 1e-5


def test_the_plan_sees_no_private_row_and_nothing_takes_a_generator() -> None:
    """PRIVACY rules 2 and 14."""
    assert "rows" not in inspect.signature(DPEBM.plan).parameters
    for name in ("plan", "release", "label", "response"):
        parameters = set(inspect.signature(getattr(DPEBM, name)).parameters)
        assert not parameters & {"rng", "seed", "random", "generator"}


@pytest.fixture
def gaussians(monkeypatch) -> list[tuple[object, float, np.ndarray]]:
    """Spy on InterpretML's sampler: its generator, the scale asked for, the noise made."""
    seen = []
    real = Native.generate_gaussian_random

    def spy(self, rng, stddev, count):
        noise = real(self, rng, stddev, count)
        seen.append((rng, stddev, noise.copy()))
        return noise

    monkeypatch.setattr(Native, "generate_gaussian_random", spy)
    return seen


@pytest.mark.statistical
def test_the_noise_has_the_scale_that_the_event_states(gaussians) -> None:
    """Two-sided chi-square test; false alarm 1e-6, power against half the noise above 1 - 1e-9."""
    rows, labels = two_columns(100)
    train_and_answer(rows, labels, ASKED, BUDGET, total=150)
    binning, boosting = boosting_machines.noise_multipliers(1.0, 1e-5, 2)
    step = boosting * boosting_machines.LEARNING_RATE
    scales = sorted({float(scale) for _, scale, _ in gaussians})
    assert scales == pytest.approx([step, binning], rel=1e-9)
    assert len(gaussians) == 2 + 2 * ROUNDS
    made = np.concatenate([noise for _, scale, noise in gaussians if scale < binning])

    def fits(samples: np.ndarray) -> bool:
        statistic = float(np.sum((samples / step) ** 2))
        tails = stats.chi2.cdf(statistic, len(samples)), stats.chi2.sf(statistic, len(samples))
        return 2 * min(tails) > FALSE_ALARM

    assert len(made) > 1_500
    assert fits(made)
    assert not fits(made / 2)
    assert stats.kstest(made / step, "norm").pvalue > FALSE_ALARM


def test_no_seeded_generator_makes_the_noise(gaussians) -> None:
    """Without one InterpretML draws on `std::random_device` (PRIVACY rule 14)."""
    np.random.seed(0)
    rows, labels = two_columns(60)
    one = train_and_answer(rows, labels, ASKED, BUDGET, total=90)
    np.random.seed(0)
    other = train_and_answer(rows, labels, ASKED, BUDGET, total=90)
    assert {generator for generator, _, _ in gaussians} == {None}
    assert (one[:, 1] != other[:, 1]).all()


@pytest.mark.usefixtures("short")
def test_a_boosting_step_moves_by_at_most_the_learning_rate_for_each_record(monkeypatch) -> None:
    """Without noise, one round: each half's sum of residuals is half its rows, times the rate.

    So what the noise is scaled to, the learning rate times one, is what a record can add.
    """
    monkeypatch.setattr(boosting_machines, "ROUNDS", 1)
    monkeypatch.setattr(
        Native, "generate_gaussian_random", lambda self, rng, stddev, count: np.zeros(count)
    )
    half = np.where(np.arange(1_000) % 2, 0.75, 0.25)[:, None]
    labels = (half[:, 0] > 0.5).astype(np.int64)
    asked = np.array([[0.25], [0.75]])
    scores = train_and_answer(half, labels, asked, BUDGET, total=1_000)[:, 1]
    # Sums of residuals: 500 records of 1/2 each, over 500 records a bin, and no more.
    assert scores[1] - scores[0] == pytest.approx(2 * 0.01 * 0.5, rel=0.02)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("num_rows", [0, 1, 90, 100])
def test_interpretml_sees_the_public_number_of_rows(monkeypatch, num_rows: int) -> None:
    seen = []
    real = _preprocessor.private_numeric_binning

    def spy(column, weight, scale, bins, low, high, rng):
        seen.append((len(column), weight, (low, high), column))
        return real(column, weight, scale, bins, low, high, rng)

    monkeypatch.setattr(_preprocessor, "private_numeric_binning", spy)
    rows, labels = two_columns(num_rows)
    train_and_answer(rows, labels, ASKED, BUDGET, total=100)
    assert [(length, weight, bounds) for length, weight, bounds, _ in seen] == [
        (102, None, (0.0, 1.0))
    ] * 2
    inside = [int((column <= 1).sum()) for *_, column in seen]
    assert inside == [num_rows + 2] * 2


@pytest.mark.usefixtures("short")
def test_padding_takes_no_part_in_boosting(monkeypatch) -> None:
    """Without noise, rows that only pad change nothing but the bins' threshold."""
    monkeypatch.setattr(
        Native, "generate_gaussian_random", lambda self, rng, stddev, count: np.zeros(count)
    )
    monkeypatch.setattr(boosting_machines, "ROUNDS", 200)
    rows = np.tile([[0.2], [0.8]], (200, 1))
    labels = np.tile([0, 1], 200)
    asked = np.array([[0.2], [0.8]])
    one, other = (
        train_and_answer(rows, labels, asked, BUDGET, total=total) for total in (400, 420)
    )
    np.testing.assert_allclose(one, other, atol=0.1)


@pytest.mark.usefixtures("short")
def test_more_rows_than_the_public_number_count_as_none(gaussians) -> None:
    """What happens with probability below 2^-64: then none of them is looked at."""
    rows, labels = two_columns(80)
    scores = train_and_answer(rows, labels, ASKED, BUDGET, total=40)
    assert np.isfinite(scores).all()
    assert len(gaussians) == 2 + 2 * 3


def test_the_margin_holds_but_for_2_to_the_minus_64() -> None:
    assert math.exp(-(MARGIN**2) / 2) < 2.0**-64


@pytest.mark.usefixtures("short")
def test_the_public_number_is_the_noised_count_and_a_margin(proxy, monkeypatch) -> None:
    totals = []
    real = dp_ebm.train_and_answer

    def spy(rows, labels, asked, budget, *, total):
        totals.append(total)
        return real(rows, labels, asked, budget, total=total)

    monkeypatch.setattr(dp_ebm, "train_and_answer", spy)
    monkeypatch.setattr(private_model, "add_noise", lambda exact, scale: exact - 7)
    release, _ = answer(make_rows(300), proxy)
    plan = DPEBM().plan(ask(proxy, "dp-ebm"), proxy, rows_at_least=20)
    assert totals == [293 + math.ceil(MARGIN * plan.count_scale)]
    assert release.parameters["noised-count"] == 293


def test_less_noise_than_was_charged_for_is_noticed(monkeypatch) -> None:
    rows, labels = two_columns(50)
    planned = _privacy.calc_gdp_noise_multi
    monkeypatch.setattr(
        _preprocessor, "calc_gdp_noise_multi", lambda *args, **rest: planned(*args, **rest) / 2
    )
    with pytest.raises(PolicyRefusal, match="noise of InterpretML"):
        train_and_answer(rows, labels, ASKED, BUDGET, total=60)


def one_class(num_classes: int) -> LabelledRows:
    rows = make_rows(50, num_classes)
    return replace(rows, labels=rows.labels * 0)


def impossible(num_classes: int) -> LabelledRows:
    rows = make_rows(50, num_classes)
    labels = np.where(np.arange(50) % 2, 99, -1)
    return replace(rows, rows=rows.rows * np.float32(np.inf), labels=labels)


def infinite(num_classes: int) -> LabelledRows:
    rows = make_rows(50, num_classes)
    values = rows.rows.copy()
    values[::2], values[1::2] = np.inf, np.nan
    return replace(rows, rows=values)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("site", [without_rows, one_class, impossible, infinite])
def test_every_site_answers(proxy, site: Callable[[int], LabelledRows], num_classes: int) -> None:
    """PRIVACY rule 3: a degenerate site does not raise, and its answer is complete."""
    release, teacher = answer(site(num_classes), proxy)
    assert release.codes.shape == (400, num_classes - 1)
    assert np.isfinite(teacher.weights).all()
    asked = ask(proxy, "dp-ebm", num_classes=num_classes)
    for values in vars(DPEBM().response(asked, release, proxy)).values():
        assert np.isfinite(values).all()
        assert (values > 0).all()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_learns(proxy, num_classes: int) -> None:
    rows, fresh = make_rows(2_000, num_classes), make_rows(1_000, num_classes, seed=3)
    release, teacher = answer(rows, proxy, epsilon=4.0)
    others = ProxySet(schema=numbers(COLUMNS), rows=fresh.rows)
    log_odds = DPEBM().label(teacher, proxy, others).log_odds[:, -1]
    assert roc_auc_score(fresh.labels == num_classes - 1, log_odds) > 0.75
    on_proxy = DPEBM().label(teacher, proxy, ProxySet(schema=numbers(COLUMNS), rows=proxy.rows))
    within = np.clip(on_proxy.log_odds, -8, 8)
    np.testing.assert_allclose(release.log_odds, within, atol=2e-4)


@pytest.mark.statistical
def test_the_response_predicts_the_noise(proxy) -> None:
    """Against the spread of 16 releases of one data set, summed over all directions.

    Both sides are estimates: over 8 releases their ratio was seen from 0.3 to 1.3. The bound lies
    far beyond that, and still rejects noise that is stated four times too small or too large.
    """
    rows, asked = make_rows(500), ask(proxy, "dp-ebm")
    answers = [answer(rows, proxy) for _ in range(16)]
    along = np.stack([teacher.weights for _, teacher in answers])
    spread = along.var(axis=0, ddof=1).sum()
    laws = [DPEBM().response(asked, release, proxy) for release, _ in answers]
    predicted = np.mean([law.noise_variance.sum() for law in laws])
    assert 1 / 8 < spread / predicted < 8


def test_too_many_columns_are_refused(proxy, monkeypatch) -> None:
    monkeypatch.setattr(dp_ebm, "_MOST_COLUMNS", 3)
    with pytest.raises(PolicyRefusal, match="at most 3 columns, and the proxy set has 4"):
        DPEBM().plan(ask(proxy, "dp-ebm"), proxy, rows_at_least=20)


def test_without_interpretml_the_way_to_install_it_is_named(proxy, monkeypatch) -> None:
    monkeypatch.setattr(private_model, "find_spec", lambda name: None)
    with pytest.raises(PolicyRefusal, match=r"pip install 'fedistill\[dp-ebm\]'"):
        DPEBM().plan(ask(proxy, "dp-ebm"), proxy, rows_at_least=20)


def test_columns_are_what_the_noise_is_shared_by(proxy) -> None:
    assert PublicRanks.of(proxy).num_columns == len(COLUMNS)
