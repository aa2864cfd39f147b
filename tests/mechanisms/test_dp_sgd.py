import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, ZCDpEvent
from sklearn.metrics import roc_auc_score

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.distill.target import build_ensemble
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.mechanisms import dp_sgd, has_float_noise, mechanism_named, private_model
from fedistill.mechanisms.dp_sgd import DPSGD, rehearsed_logits
from fedistill.mechanisms.sampled_gaussian import calibrate_noise
from fedistill.privacy.accountant import epsilon_of
from tests.mechanisms.toy import COLUMNS, ask, make_proxy, make_rows, true_logits, without_rows

QUICK = {"sgd_steps": 20}
IMAGE = tuple(f"p{number:02d}" for number in range(64))


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy()


@pytest.fixture
def descents(monkeypatch) -> list[tuple[int, dp_sgd.Descent]]:
    """Spy on what is trained: how many rows, and how."""
    seen = []
    real = dp_sgd.train

    def spy(network, inputs, targets, descent, **rest):
        seen.append((len(inputs), descent))
        real(network, inputs, targets, descent, **rest)

    monkeypatch.setattr(dp_sgd, "train", spy)
    return seen


def answer(rows: LabelledRows, proxy: ProxySet, **changes):
    asked = ask(proxy, "dp-sgd", **(QUICK | {"num_classes": rows.num_classes} | changes))
    return DPSGD().release(rows, proxy, DPSGD().plan(asked, proxy, rows_at_least=20))


def test_it_is_found_by_name_and_says_that_its_noise_is_floating() -> None:
    assert type(mechanism_named("dp-sgd")) is DPSGD
    assert has_float_noise(DPSGD())
    assert not has_float_noise(mechanism_named("dp-probe"))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 20.0])
@pytest.mark.parametrize(("steps", "rate"), [(1, 0.01), (20, 0.2), (50, 1.0)])
def test_the_plan_costs_what_was_asked_and_no_more(proxy, epsilon, steps, rate) -> None:
    """PRIVACY rule 9."""
    asked = ask(proxy, "dp-sgd", epsilon=epsilon, sgd_steps=steps, sgd_sampling_rate=rate)
    plan = DPSGD().plan(asked, proxy, rows_at_least=20)
    assert epsilon * 0.99 <= epsilon_of(plan.event, 1e-5, DPSGD.adjacency) <= epsilon


def test_the_event_states_count_rate_noise_and_steps(proxy) -> None:
    plan = DPSGD().plan(ask(proxy, "dp-sgd", **QUICK), proxy, rows_at_least=20)
    step = PoissonSampledDpEvent(0.2, GaussianDpEvent(plan.noise_multiplier))
    count, steps = plan.event.events
    assert count == ZCDpEvent(0.5 / plan.count_scale**2)
    assert steps == SelfComposedDpEvent(step, 20)


def test_the_plan_sees_no_private_row_and_nothing_takes_a_generator() -> None:
    """PRIVACY rules 2 and 14."""
    assert "rows" not in inspect.signature(DPSGD.plan).parameters
    for name in ("plan", "release", "label", "response"):
        parameters = set(inspect.signature(getattr(DPSGD, name)).parameters)
        assert not parameters & {"rng", "seed", "random", "generator"}


@pytest.mark.parametrize("num_rows", [0, 100, 3_000])
def test_what_is_trained_follows_the_noised_count_and_not_the_rows(
    proxy, descents, num_rows: int
) -> None:
    """PRIVACY rule 2: rate, steps and noise are the question's, the divisor is a noised count's."""
    rows = make_rows(3_000).take(np.arange(num_rows))
    release, _ = answer(rows, proxy)
    planned = DPSGD().plan(ask(proxy, "dp-sgd", **QUICK), proxy, rows_at_least=20)
    seen, descent = descents[-1]
    assert seen == num_rows
    assert descent == planned.descent(release.parameters["noised-count"])
    assert (descent.steps, descent.sampling_rate) == (20, 0.2)
    assert descent.noise_multiplier == planned.noise_multiplier
    assert descent.divisor == 0.2 * release.parameters["noised-count"]


def test_the_count_is_noised_and_its_scale_is_the_planned_one(proxy, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        private_model, "add_noise", lambda exact, scale: seen.append(scale) or exact + 7
    )
    release, _ = answer(make_rows(100), proxy)
    planned = DPSGD().plan(ask(proxy, "dp-sgd", **QUICK), proxy, rows_at_least=20)
    assert seen == [planned.count_scale]
    assert release.parameters["noised-count"] == 107


def test_the_learning_rate_is_lowered_where_noise_would_drown_the_answer(proxy) -> None:
    plan = DPSGD().plan(ask(proxy, "dp-sgd", **QUICK), proxy, rows_at_least=20)
    few, many = plan.descent(50.0), plan.descent(1e6)
    assert many.learning_rate == plan.question.sgd_learning_rate / many.clip
    assert few.learning_rate < many.learning_rate


def test_answers_are_fresh_and_seeds_do_not_reach_them(proxy) -> None:
    """PRIVACY rule 14."""
    answers = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        answers.append(answer(make_rows(200), proxy)[0].codes)
    assert (answers[0] != answers[1]).mean() > 0.9


def test_training_leaves_the_callers_generator_as_it_was(proxy) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    answer(make_rows(50), proxy)
    assert torch.equal(before, torch.get_rng_state())


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


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("site", [without_rows, one_class, impossible, infinite])
def test_every_site_answers(proxy, site: Callable[[int], LabelledRows], num_classes: int) -> None:
    """PRIVACY rule 3: a degenerate site does not raise, and its answer is complete."""
    release, teacher = answer(site(num_classes), proxy)
    assert release.codes.shape == (400, num_classes - 1)
    assert np.isfinite(teacher.weights).all()
    asked = ask(proxy, "dp-sgd", num_classes=num_classes, **QUICK)
    for values in vars(DPSGD().response(asked, release, proxy)).values():
        assert np.isfinite(values).all()
        assert (values > 0).all()


def test_a_site_without_rows_answers_about_uniform(proxy) -> None:
    release, _ = answer(without_rows(), proxy, epsilon=1000.0)
    assert np.abs(release.log_odds).mean() < 1.0


def test_a_record_with_an_impossible_label_takes_no_part(proxy, descents) -> None:
    good = make_rows(80)
    bad = LabelledRows(
        columns=COLUMNS,
        rows=np.concatenate([good.rows[:3], good.rows]),
        labels=np.concatenate([[-1, 2, 99], good.labels]),
        num_classes=2,
    )
    answer(bad, proxy)
    assert descents[-1][0] == 80


@pytest.mark.parametrize("num_classes", [2, 4])
def test_an_ensemble_learns(proxy, num_classes: int) -> None:
    asked = ask(proxy, "dp-sgd", num_classes=num_classes, epsilon=4.0, sgd_steps=40)
    plan = DPSGD().plan(asked, proxy, rows_at_least=20)
    releases = [
        DPSGD().release(make_rows(1_000, num_classes, seed=10 + site), proxy, plan)[0]
        for site in range(3)
    ]
    responses = [DPSGD().response(asked, release, proxy) for release in releases]
    ensemble = build_ensemble(releases, responses, proxy_basis(proxy), weights="agreement")
    fresh = make_rows(2_000, num_classes, seed=3)
    log_odds = ensemble.label(fresh.rows)[:, -1]
    truth = true_logits(fresh.rows, num_classes)
    last = fresh.labels == num_classes - 1
    best = roc_auc_score(last, truth[:, -1] - truth[:, 0])
    assert roc_auc_score(last, log_odds) > best - 0.04


def test_missing_values_are_no_hindrance() -> None:
    random = np.random.default_rng(0)
    holes = random.random((400, 4)) < 0.3
    gappy = ProxySet(
        schema=numbers(COLUMNS),
        rows=np.where(holes, np.float32(np.nan), make_proxy().rows),
    )
    rows = make_rows(1_000)
    rows = replace(rows, rows=np.where(random.random((1_000, 4)) < 0.3, np.nan, rows.rows))
    release, _ = answer(rows, gappy, epsilon=50.0, sgd_steps=40)
    truth = np.diff(true_logits(make_proxy().rows, 2))[:, 0]
    assert np.corrcoef(release.log_odds[:, 0], truth)[0, 1] > 0.6


def test_labels_of_other_rows_agree_with_the_release(proxy) -> None:
    release, teacher = answer(make_rows(500), proxy, epsilon=20.0)
    on_proxy = DPSGD().label(teacher, proxy, ProxySet(schema=numbers(COLUMNS), rows=proxy.rows))
    within = np.clip(on_proxy.log_odds, -8, 8)
    np.testing.assert_allclose(release.log_odds, within, atol=2e-4)


@pytest.mark.statistical
@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_response_predicts_the_noise(proxy, num_classes: int) -> None:
    """The law that the server inverts, against the spread of 12 releases of one data set.

    Rehearsed with other labels, it is an estimate: summed over all directions it must lie within a
    factor of four of what is seen. A noise multiplier that is off by three would not.
    """
    rows = make_rows(500, num_classes)
    answers = [answer(rows, proxy) for _ in range(12)]
    vectors = proxy_basis(proxy).eigenvectors
    along = np.stack([vectors.T @ teacher.weights for _, teacher in answers])
    spread = along.var(axis=0, ddof=1).sum(axis=1) / (num_classes - 1)
    asked = ask(proxy, "dp-sgd", num_classes=num_classes, **QUICK)
    predicted = DPSGD().response(asked, answers[0][0], proxy).noise_variance
    assert 1 / 4 < spread.sum() / predicted.sum() < 4


def test_a_rehearsal_uses_public_values_only_and_is_the_same_each_time(proxy) -> None:
    plan = DPSGD().plan(ask(proxy, "dp-sgd", **QUICK), proxy, rows_at_least=20)
    one, same = (rehearsed_logits(plan, proxy, 300.0, seed=0) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_rehearsed_noise_is_smaller_at_a_larger_site(proxy) -> None:
    plan = DPSGD().plan(ask(proxy, "dp-sgd", **QUICK), proxy, rows_at_least=20)
    apart = [
        rehearsed_logits(plan, proxy, size, seed=0) - rehearsed_logits(plan, proxy, size, seed=1)
        for size in (300.0, 30_000.0)
    ]
    assert apart[0].std() > 3 * apart[1].std()


@pytest.mark.parametrize(("num_rows", "size"), [(100, 100), (6_500, 512), (50, 400)])
@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_a_rehearsal_on_fewer_rows_is_moved_as_much_by_noise_and_sampling(
    proxy, num_rows: int, size: int, rate: float
) -> None:
    asked = ask(proxy, "dp-sgd", sgd_steps=5, sgd_sampling_rate=rate)
    real = DPSGD().plan(asked, proxy, rows_at_least=20).descent(float(num_rows))
    small = dp_sgd.scaled_down(real, float(num_rows), size)

    def sampling(how: dp_sgd.Descent, rows: int) -> float:
        return (1 - how.sampling_rate) / (how.sampling_rate * rows)

    assert sampling(small, size) == pytest.approx(sampling(real, max(num_rows, size)))
    assert small.noise_multiplier / small.divisor == pytest.approx(
        real.noise_multiplier / real.divisor
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sgd_steps": 0}, "sgd-steps=0 must be at least 1"),
        ({"sgd_sampling_rate": 0.0}, "sgd-sampling-rate=0.0"),
        ({"sgd_sampling_rate": 1.5}, "sgd-sampling-rate=1.5"),
        ({"sgd_sampling_rate": np.nan}, "sgd-sampling-rate=nan"),
        ({"sgd_clip": 0.0}, "sgd-clip=0.0"),
        ({"sgd_clip": np.inf}, "sgd-clip=inf"),
        ({"sgd_learning_rate": np.nan}, "sgd-learning-rate=nan"),
        ({"teacher": "mpl"}, "did you mean 'mlp'"),
        ({"teacher": "logistic"}, "teacher='logistic' must be a network"),
        ({"teacher": "cnn"}, "square images"),
        ({"teacher": "no.such:thing"}, "cannot be imported"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(proxy, changes, words) -> None:
    with pytest.raises(PolicyRefusal, match=words):
        DPSGD().plan(ask(proxy, "dp-sgd", **(QUICK | changes)), proxy, rows_at_least=20)


def test_noise_that_no_budget_pays_is_refused() -> None:
    with pytest.raises(PolicyRefusal, match="sgd-steps=10000"):
        calibrate_noise(1e-6, 1e-9, 10_000, 1.0, 1e9)


def test_without_opacus_the_way_to_install_it_is_named(proxy, monkeypatch) -> None:
    monkeypatch.setattr(private_model, "find_spec", lambda name: None)
    with pytest.raises(PolicyRefusal, match=r"pip install 'fedistill\[dp-sgd\]'"):
        DPSGD().plan(ask(proxy, "dp-sgd"), proxy, rows_at_least=20)


def image_rows(num_rows: int, seed: int) -> LabelledRows:
    """8 by 8 images with a bar, upright or lying."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, num_rows)
    pixels = random.normal(size=(num_rows, 8, 8)) * 0.3
    where = random.integers(1, 7, num_rows)
    for image, label, place in zip(pixels, labels, where, strict=True):
        image[place if label else slice(None), slice(None) if label else place] += 2.0
    rows = pixels.reshape(num_rows, 64).astype(np.float32)
    return LabelledRows(columns=IMAGE, rows=rows, labels=labels, num_classes=2)


def test_a_cnn_learns_images() -> None:
    proxy = ProxySet(schema=numbers(IMAGE), rows=image_rows(200, seed=1).rows)
    rows, fresh = image_rows(600, seed=2), image_rows(200, seed=3)
    asked = ask(proxy, "dp-sgd", teacher="cnn", epsilon=50.0, sgd_steps=30)
    _, teacher = DPSGD().release(rows, proxy, DPSGD().plan(asked, proxy, rows_at_least=20))
    others = ProxySet(schema=numbers(IMAGE), rows=fresh.rows)
    labels = DPSGD().label(teacher, proxy, others)
    assert roc_auc_score(fresh.labels, labels.log_odds[:, 0]) > 0.8


def test_a_network_of_ones_own_is_trained(proxy, monkeypatch) -> None:
    module = ModuleType("my_networks")
    module.deep = lambda inputs, classes: torch.nn.Sequential(  # type: ignore[attr-defined]
        torch.nn.Linear(inputs, 8),
        torch.nn.GroupNorm(2, 8),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(8, classes),
    )
    monkeypatch.setitem(sys.modules, "my_networks", module)
    rows = make_rows(1_000)
    release, _ = answer(rows, proxy, teacher="my_networks:deep", epsilon=50.0, sgd_steps=60)
    truth = np.diff(true_logits(proxy.rows, 2))[:, 0]
    assert np.corrcoef(release.log_odds[:, 0], truth)[0, 1] > 0.7
