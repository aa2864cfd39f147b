"""Tables of a student's hits and scores: what a unit moves, what noise it gets, what follows."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_auc_score

from fedistill.data import LabelledRows
from fedistill.errors import PolicyRefusal
from fedistill.evaluate.federated import federated_scores
from fedistill.features.onnx_encoder import load_onnx
from fedistill.mechanisms.evaluation import (
    ADJACENCY,
    SCORE_BINS,
    VOTE,
    count_tables,
    noised_tables,
    num_curves,
    open_tables,
    plan_evaluation,
    score_edges,
)
from fedistill.privacy.accountant import epsilon_of
from tests.mechanisms.toy import make_proxy, make_rows, without_rows
from tests.scored_students import COLUMNS, evaluation_of, even_edges, sent, softmax_student


def softmax(rows: np.ndarray, num_classes: int = 2) -> np.ndarray:
    weights = np.random.default_rng(3).normal(size=(COLUMNS, num_classes)).astype(np.float32)
    logits = (rows @ weights).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def answering(num_classes: int = 2):
    return lambda row: softmax(row, num_classes)


def question(num_classes: int = 2, **changes):
    student = sent(num_classes)
    return evaluation_of(make_proxy(), student, num_classes=num_classes, **changes)


def num_tables(num_classes: int) -> int:
    return 1 if num_classes == 2 else num_classes + 1


def tables_of(counts: np.ndarray, num_classes: int) -> list[np.ndarray]:
    first = [counts[: num_classes**2]] if num_classes > 2 else []
    rest = counts[num_classes**2 :] if num_classes > 2 else counts
    return first + np.split(rest, num_curves(num_classes))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6))
def test_adding_a_record_moves_the_tables_by_exactly_the_square_root_of_their_number(
    seed: int, classes: int
) -> None:
    rows = make_rows(12, classes, seed)
    with_it = count_tables(rows, answering(classes), even_edges(classes))
    without = count_tables(rows.take(np.arange(11)), answering(classes), even_edges(classes))
    moved = with_it - without
    assert int(moved @ moved) == num_tables(classes) * VOTE**2


@settings(deadline=None, max_examples=40)
@given(data=st.data(), classes=st.integers(2, 4))
def test_adding_a_unit_moves_no_table_by_more_than_a_vote(data, classes: int) -> None:
    """Whatever its rows are, impossible labels and rows without an answer among them."""
    size = data.draw(st.integers(1, 15))
    rows = make_rows(size, classes, data.draw(st.integers(0, 999)))
    labels = np.array(data.draw(st.lists(st.integers(-1, classes), min_size=size, max_size=size)))
    units = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    values = rows.rows.copy()
    values[np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))] = np.nan
    whole = replace(rows, rows=values, labels=labels, units=units)
    rest = whole.take(np.flatnonzero(units != 0))
    moved = count_tables(whole, answering(classes), even_edges(classes)) - count_tables(
        rest, answering(classes), even_edges(classes)
    )
    assert (moved >= 0).all()
    assert all(part.sum() <= VOTE for part in tables_of(moved, classes))
    assert int(moved @ moved) <= num_tables(classes) * VOTE**2


def test_a_record_counts_as_it_does_alone_even_if_the_student_mixes_a_batch() -> None:
    """PRIVACY rule 8: a softmax over the batch is one over a single row here."""
    answer = load_onnx(softmax_student(axis=0), "student", COLUMNS)
    rows = make_rows(9)
    together = count_tables(rows, answer, even_edges())
    alone = sum(count_tables(rows.take(np.array([row])), answer, even_edges()) for row in range(9))
    np.testing.assert_array_equal(together, alone)


def raising(row: np.ndarray) -> np.ndarray:
    if row[0, 0] > 0:
        raise ValueError("this row is too much")
    return softmax(row)


@pytest.mark.parametrize(
    "answer",
    [
        raising,
        lambda row: softmax(row) * np.where(row[0, 0] > 0, np.inf, 1.0),
        lambda row: softmax(row) * np.where(row[0, 0] > 0, -1.0, 1.0),
        lambda row: np.zeros((1, 5)) if row[0, 0] > 0 else softmax(row),
        lambda row: "yes" if row[0, 0] > 0 else softmax(row),
        lambda row: np.zeros((1, 2)) if row[0, 0] > 0 else softmax(row),
    ],
)
def test_a_record_without_an_answer_counts_as_nothing(answer) -> None:
    rows = make_rows(40)
    kept = rows.take(np.flatnonzero(rows.rows[:, 0] <= 0))
    np.testing.assert_array_equal(
        count_tables(rows, answer, even_edges()), count_tables(kept, softmax, even_edges())
    )


@pytest.mark.parametrize("label", [-1, 2, 10**9])
def test_a_record_with_an_impossible_label_counts_as_nothing(label: int) -> None:
    rows = replace(make_rows(3), labels=np.array([0, label, 1]))
    kept = rows.take(np.array([0, 2]))
    np.testing.assert_array_equal(
        count_tables(rows, softmax, even_edges()), count_tables(kept, softmax, even_edges())
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_an_empty_site_answers_noise(classes: int) -> None:
    plan = plan_evaluation(question(classes), rows_at_least=20, num_sites=1)
    found = noised_tables(without_rows(classes), answering(classes), even_edges(classes), plan)
    assert found.shape == (plan.length,)
    assert found.any()


def test_the_plan_is_made_without_private_rows() -> None:
    assert "rows" not in inspect.signature(plan_evaluation).parameters
    plan = plan_evaluation(question(), rows_at_least=20, num_sites=3)
    assert plan == plan_evaluation(question(), rows_at_least=20, num_sites=3)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5, 4.0])
def test_a_plan_costs_at_most_what_was_asked_and_hardly_less(classes: int, epsilon: float) -> None:
    plan = plan_evaluation(question(classes, epsilon=epsilon), rows_at_least=20, num_sites=3)
    spent = epsilon_of(plan.event, 1e-5, ADJACENCY)
    assert 0.999 * epsilon < spent <= epsilon


@pytest.mark.parametrize("classes", [2, 4])
def test_the_noise_is_that_of_the_sensitivity(classes: int) -> None:
    """An independent formula: rho = D^2 / (2 scale^2), but for what rounding costs."""
    plan = plan_evaluation(question(classes), rows_at_least=20, num_sites=1)
    std = open_tables(
        np.zeros(plan.length, np.int64), even_edges(classes), plan, num_sites=1
    ).score_std
    assert num_tables(classes) / (2 * std**2) == pytest.approx(plan.event.rho, rel=0.04)


def test_shared_noise_is_less_for_each_and_dearer_if_all_others_collude() -> None:
    own = plan_evaluation(question(), rows_at_least=20, num_sites=4)
    shared = plan_evaluation(
        question(trust="secagg", min_honest_sites=4), rows_at_least=20, num_sites=4
    )
    assert shared.vectors[0].scale == pytest.approx(own.vectors[0].scale / 2, rel=0.02)
    assert epsilon_of(shared.event, 1e-5, ADJACENCY) <= 0.5
    assert epsilon_of(shared.alone, 1e-5, ADJACENCY) > 0.9


def test_noise_without_room_is_refused() -> None:
    with pytest.raises(PolicyRefusal, match="raise epsilon"):
        plan_evaluation(question(epsilon=1e-4), rows_at_least=20, num_sites=900)


def exact_scores(rows: LabelledRows, edges: np.ndarray):
    """The figures of tables without noise."""
    classes = rows.num_classes
    counts = count_tables(rows, answering(classes), edges)
    plan = plan_evaluation(question(classes, epsilon=50.0), rows_at_least=20, num_sites=1)
    tables = open_tables(counts // plan.vectors[0].divisor, edges, plan, num_sites=1)
    return tables, federated_scores(
        tables.confusion,
        tables.scores,
        confusion_std=np.zeros_like(tables.confusion_std),
        score_std=0.0,
        classes=[str(place) for place in range(classes)],
        sites=["bank_a"],
    )


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_without_noise_the_figures_are_those_of_scikit_learn(classes: int) -> None:
    rows = make_rows(800, classes)
    shares = softmax(rows.rows, classes)
    edges = score_edges(softmax(make_proxy().rows, classes))
    tables, found = exact_scores(rows, edges)
    confusion = confusion_matrix(rows.labels, shares.argmax(axis=1))
    np.testing.assert_allclose(tables.confusion, confusion, atol=0.01)
    assert found.accuracy == pytest.approx((shares.argmax(axis=1) == rows.labels).mean(), abs=1e-4)
    for place, each in enumerate(found.classes.values()):
        assert each.recall == pytest.approx(confusion[place, place] / confusion[place].sum(), 1e-3)
    curves = [1] if classes == 2 else range(classes)
    binned = [
        roc_auc_score(rows.labels == curve, np.searchsorted(edge, shares[:, curve]))
        for curve, edge in zip(curves, edges, strict=True)
    ]
    assert found.auc == pytest.approx(np.mean(binned), abs=1e-4)
    fine = np.mean([roc_auc_score(rows.labels == curve, shares[:, curve]) for curve in curves])
    assert abs(fine - found.auc) < 0.012  # what the curve has inside bins


def test_two_classes_need_no_table_of_their_own_for_who_is_taken_for_whom() -> None:
    edges = score_edges(softmax(make_proxy().rows))
    assert 0.5 in edges
    assert edges.shape == (1, SCORE_BINS - 1)
    assert (np.diff(edges) >= 0).all()


def test_a_student_that_gives_every_row_one_score_still_has_bins() -> None:
    edges = score_edges(np.tile([0.3, 0.7], (50, 1)))
    rows = make_rows(30)
    counts = count_tables(rows, lambda row: np.array([[0.3, 0.7]]), edges)
    assert counts.sum() == 30 * VOTE
