"""The planner: what it makes of public rows, and what it concludes."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedistill.data import ProxySet, numbers
from fedistill.errors import ConfigError, DataError
from fedistill.planner import Forecast, PublicRows, Request, Trial, forecast, read_public_rows
from fedistill.planner.forecast import _runnable
from fedistill.planner.recommend import recommend
from fedistill.planner.results import as_json, points, render_page
from fedistill.planner.virtual_sites import (
    draw_labels,
    draw_world,
    fitted_labeller,
    made_up_labeller,
    resample,
)
from tests.small import write_table

QUICK = {"rows_at_least": 300, "seconds": 0.0}


def public_rows(num_rows: int = 400, *, labels: str = "none", num_classes: int = 2) -> PublicRows:
    random = np.random.default_rng(0)
    rows = random.normal(size=(num_rows, 4)).astype(np.float32)
    rows[:20, 3] = np.nan
    found = {
        "none": None,
        "true": (rows[:, 0] + rows[:, 1] > 0).astype(np.int64),
        "noise": random.integers(num_classes, size=num_rows),
    }
    return PublicRows(
        rows=ProxySet(schema=numbers("abcd"), rows=rows),
        labels=found[labels],
        num_classes=num_classes,
        name="made",
    )


@pytest.fixture(scope="module")
def found() -> Forecast:
    request = Request(mechanisms=("dp-probe", "clipped"), epsilon=2.0, **QUICK)
    return forecast(public_rows(labels="true"), request)


@pytest.mark.parametrize("labels", ["none", "true"])
def test_virtual_sites_hold_public_values_only_and_none_that_scores(labels: str) -> None:
    public = public_rows(labels=labels)
    world = draw_world(public, draw=1, num_sites=3, num_rows=500)
    proxy = {row.tobytes() for row in world.proxy.rows}
    assert not proxy & {row.tobytes() for row in world.held_out.rows}
    assert len(world.proxy.rows) + len(world.held_out.rows) == len(public.rows.rows)
    for site in world.sites:
        assert len(site.labels) == 500
        for j in range(4):
            known = world.proxy.rows[:, j]
            assert np.isin(site.rows[:, j], known).sum() == (~np.isnan(site.rows[:, j])).sum()


def test_rows_are_not_repeated_while_there_are_enough() -> None:
    rows = public_rows().rows.rows
    taken = resample(rows, 100, np.random.default_rng(0))
    assert len({row.tobytes() for row in taken}) == 100
    assert {row.tobytes() for row in taken} <= {row.tobytes() for row in rows}


def test_another_draw_is_another_world_and_the_same_draw_the_same() -> None:
    first, again, other = (
        draw_world(public_rows(), draw=draw, num_sites=1, num_rows=100) for draw in (0, 0, 1)
    )
    assert first.proxy == again.proxy != other.proxy
    np.testing.assert_array_equal(first.sites[0].labels, again.sites[0].labels)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_made_up_labels_follow_the_rows_and_hold_all_classes(num_classes: int) -> None:
    rows = public_rows().rows
    shares = made_up_labeller(rows, num_classes, 0)(rows.rows)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.std(axis=0).min() > 0.05
    assert set(draw_labels(shares, np.random.default_rng(0))) == set(range(num_classes))


def test_constant_columns_give_labels_that_say_nothing() -> None:
    rows = ProxySet(schema=numbers("a"), rows=np.ones((50, 1), np.float32))
    np.testing.assert_allclose(made_up_labeller(rows, 2, 0)(rows.rows), 0.5)


def test_labels_are_drawn_with_their_probabilities() -> None:
    shares = np.tile([0.2, 0.5, 0.3], (20_000, 1))
    counts = np.bincount(draw_labels(shares, np.random.default_rng(0)), minlength=3)
    # Six standard deviations: a false alarm once in 1e8.
    assert np.abs(counts / 20_000 - shares[0]).max() < 6 * 0.5 / 20_000**0.5


def test_a_model_carries_public_labels_to_other_rows() -> None:
    public = public_rows(labels="true")
    assert public.labels is not None
    label = fitted_labeller(public.rows, public.labels, 2)
    assert label(np.array([[2, 2, 0, 0]], np.float32))[0, 1] > 0.8
    assert label(np.array([[-2, -2, 0, 0]], np.float32))[0, 1] < 0.2


def trial(mechanism: str, draw: int, score: float, **changes: object) -> Trial:
    plain = Trial(
        mechanism=mechanism,
        epsilon=1.0,
        draw=draw,
        score=score,
        chance=0.5,
        attainable=0.95,
        noise_nats=1.0,
        bytes_up=1000,
        seconds=1.0,
        float_noise=False,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def trials(mechanism: str, *scores: float, **changes: object) -> list[Trial]:
    return [trial(mechanism, draw, score, **changes) for draw, score in enumerate(scores)]


def test_the_best_mean_is_advised() -> None:
    some = trials("good", 0.8, 0.7, 0.9) + trials("bad", 0.7, 0.6, 0.8)
    advice = recommend(some, 1.0, metric="auc")
    assert (advice.mechanism, advice.tied) == ("good", ())
    assert "Next comes bad" in advice.reason


@pytest.mark.parametrize(
    ("better", "plain"), [({"float_noise": True}, {}), ({}, {"bytes_up": 500})]
)
def test_a_tie_goes_to_exact_noise_and_to_fewer_bytes(
    better: dict[str, object], plain: dict[str, object]
) -> None:
    some = trials("best", 0.81, 0.69, 0.92, **better) + trials("other", 0.8, 0.7, 0.9, **plain)
    advice = recommend(some, 1.0, metric="auc")
    assert (advice.mechanism, advice.tied) == ("other", ("best",))


def test_none_is_advised_where_none_beats_guessing() -> None:
    advice = recommend(trials("a", 0.52, 0.47, 0.53), 1.0, metric="auc")
    assert advice.mechanism is None
    assert "guessing" in advice.reason


def test_tasks_of_unlike_difficulty_are_no_doubt_about_a_mechanism() -> None:
    some = [
        trial("a", draw, 0.5 + 0.9 * signal, attainable=0.5 + signal)
        for draw, signal in enumerate((0.04, 0.45, 0.1))
    ]
    # As plain gains, 0.18 with Student's reach of 0.49, these would say nothing.
    assert recommend(some, 1.0, metric="auc").mechanism == "a"


def test_three_draws_that_hardly_differ_are_a_tie() -> None:
    some = trials("one", 0.81, 0.82, 0.83) + trials("two", 0.80, 0.815, 0.81)
    # Mean difference 0.0117: beyond two standard errors, 0.0088, within Student's 0.019.
    advice = recommend(some, 1.0, metric="auc")
    assert (advice.mechanism, advice.tied) == ("one", ("two",))


def test_labels_of_pure_noise_give_no_mechanism_an_edge() -> None:
    request = Request(mechanisms=("dp-probe", "votes"), **QUICK)
    found = forecast(public_rows(2_000, labels="noise"), request)
    here = [trial.score for trial in found.trials if trial.epsilon == 1.0]
    # Each score has a standard deviation of about 0.026; six of them.
    assert np.abs(np.array(here) - 0.5).max() < 6 * 0.026


def test_what_can_be_learned_is_learned(found: Forecast) -> None:
    assert found.advice.mechanism == "dp-probe"
    scores = {(p.mechanism, p.epsilon): p.score for p in points(found)}
    assert scores["dp-probe", 2.0] > 0.85
    # What falls far behind is tried once, for there is no time to spare.
    assert [epsilon for name, epsilon in scores if name == "dp-probe"] == [0.5, 1, 2, 4, 8, 16]
    assert [epsilon for name, epsilon in scores if name == "clipped"] == [2.0]


def test_every_point_says_noise_bytes_and_seconds(found: Forecast) -> None:
    for point in points(found):
        assert 0 < point.noise_nats < 100
        # Two bytes a label of all 400 public rows, and a header.
        assert 2 * 400 < point.bytes_up < 2 * 400 + 2_000
        assert point.seconds > 0


def test_json_and_page_say_the_same(found: Forecast) -> None:
    content = as_json(found)
    assert set(content) == {
        *("public", "request", "num_classes", "metric", "with_labels", "recommended"),
        *("tied", "reason", "mechanisms", "skipped", "notes"),
    }
    assert set(content["mechanisms"][0]) == {
        *("mechanism", "epsilon", "score", "standard_error", "draws"),
        *("noise_nats", "bytes_up", "seconds"),
    }
    page = render_page(found)
    assert "Use dp-probe" in page
    assert "<polyline" in page
    assert "http" not in page.replace("http-equiv", "")


def test_without_labels_the_assumption_is_stated() -> None:
    found = forecast(public_rows(), Request(mechanisms=("votes",), **QUICK))
    assert any("made up" in note for note in found.notes)


def test_more_classes_are_scored_by_accuracy() -> None:
    found = forecast(public_rows(num_classes=3), Request(mechanisms=("dp-probe",), **QUICK))
    assert found.metric == "accuracy"
    assert all(0.3 < trial.chance < 1 for trial in found.trials)


def test_mechanisms_of_another_guarantee_are_not_mixed_in() -> None:
    names, skipped = _runnable(Request(**QUICK), public_rows().rows, 2)
    assert "clipped-site" in skipped
    assert {"dp-probe", "dp-sgd", "dp-ebm", "votes", "sharded", "clipped"} <= set(names)
    assert "corrections" not in names
    assert "ask by --mechanism" in skipped["corrections"]


def test_what_only_sums_over_sites_can_show_is_tried_if_asked_for() -> None:
    request = Request(mechanisms=("corrections",), **QUICK)
    assert _runnable(request, public_rows().rows, 2) == (["corrections"], {})


def test_the_planner_knows_neither_sites_nor_federation() -> None:
    for path in Path("fedistill/planner").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith(("fedistill.site", "fedistill.federation"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0 must be above 0"),
        ({"epsilon": float("nan")}, "epsilon=nan must be above 0"),
        ({"rows_at_least": 5}, "rows-at-least=5 must be at least 20"),
        ({"num_sites": 0}, "sites=0 must be at least 1"),
        ({"delta": 0.01}, "delta=0.01 must be above 0 and at most 1e-3"),
        ({"delta": 1e-3, "rows_at_least": 2_000}, "below 1 / rows-at-least"),
    ],
)
def test_bad_requests_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Request(**({"rows_at_least": 100} | changes))  # type: ignore[arg-type]


def test_too_few_rows_or_labels_are_refused() -> None:
    with pytest.raises(DataError, match="30 rows to plan with and must have at least 40"):
        public_rows(30)
    rare = np.zeros(400, np.int64)
    rare[:3] = 1
    with pytest.raises(DataError, match="3 labelled rows of class 1"):
        replace(public_rows(), labels=rare)


@pytest.mark.parametrize("label_column", ["", "y"])
def test_files_are_read_with_and_without_labels(label_column: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "public.npz")
    public = read_public_rows(str(path), num_classes=2, label_column=label_column)
    assert (public.labels is not None) == bool(label_column)
    assert public.rows.rows.shape == (1_500, 5)
