import numpy as np
import pytest
import torch

from fedistill.data import ProxySet
from fedistill.distill.students import predict_log_odds
from fedistill.distill.trainer import (
    Augmentation,
    Recipe,
    make_examples,
    swap_columns,
    train_student,
)
from fedistill.labels import EnsembleTarget

SHORT = Recipe(epochs=1, steps=250)


@pytest.mark.parametrize(("num_rows", "steps"), [(1000, 2500), (6000, 2500), (100_000, 15_640)])
def test_the_recipe_takes_40_epochs_and_2500_steps_at_least(num_rows, steps):
    assert Recipe().num_steps(num_rows) == steps


def test_a_student_learns_its_target_in_the_target_s_own_scale(proxy, rows, target, labeller):
    student = train_student(proxy, target, relabel=labeller, seed=0, recipe=SHORT)
    error = predict_log_odds(student, rows) - target.log_odds
    assert (error.std(axis=0) < 0.3 * target.log_odds.std(axis=0)).all()
    assert (np.abs(error.mean(axis=0)) < 0.1).all()


def test_scale_and_shift_of_a_target_do_not_matter(proxy, rows, target):
    few = Recipe(epochs=1, steps=20)
    moved = EnsembleTarget(log_odds=0.01 * target.log_odds - 3, std=0.01 * target.std, num_sites=3)
    one = predict_log_odds(train_student(proxy, target, seed=0, recipe=few), rows)
    other = predict_log_odds(train_student(proxy, moved, seed=0, recipe=few), rows)
    np.testing.assert_allclose((other + 3) / 0.01, one, atol=1e-2)


def test_equal_seeds_give_equal_students_and_leave_the_global_generator_alone(proxy, target):
    few = Recipe(epochs=1, steps=20)
    before = torch.get_rng_state()
    one, same, other = (
        train_student(proxy, target, seed=seed, recipe=few).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["body.0.weight"], other["body.0.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_noisier_labels_count_less(proxy, rows, labeller):
    """Half of the labels carry noise three times the signal and say so, or do not say so."""
    clean = labeller(rows)
    noisy = np.arange(len(rows)) % 2 == 1
    noise = 3 * np.random.default_rng(5).normal(size=clean.shape) * noisy[:, None]
    told = np.where(noisy[:, None], 3.0, 0.01) * np.ones_like(clean)
    errors = []
    for std in (told, np.full(clean.shape, told.mean())):
        noised = EnsembleTarget(log_odds=clean + noise, std=std, num_sites=3)
        student = train_student(proxy, noised, seed=0, recipe=SHORT)
        errors.append(np.square(predict_log_odds(student, rows) - clean)[~noisy].mean())
    assert errors[0] < 0.7 * errors[1]


def test_a_constant_target_is_learned_as_a_constant(proxy, rows, labeller):
    flat = EnsembleTarget(
        log_odds=np.full((len(rows), 1), -1.2), std=np.zeros((len(rows), 1)), num_sites=3
    )
    student = train_student(
        proxy, flat, relabel=lambda new: np.full((len(new), 1), -1.2), seed=0, recipe=SHORT
    )
    np.testing.assert_allclose(predict_log_odds(student, rows), -1.2, atol=0.05)


def test_progress_counts_up_to_the_end(proxy, target):
    seen = []
    train_student(
        proxy,
        target,
        seed=0,
        recipe=Recipe(epochs=1, steps=5),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 5) for step in range(1, 6)]


def test_fewer_rows_than_a_batch_are_enough(proxy, target):
    first = EnsembleTarget(log_odds=target.log_odds[:20], std=target.std[:20], num_sites=3)
    few = ProxySet(schema=proxy.schema, rows=proxy.rows[:20])
    train_student(few, first, seed=0, recipe=Recipe(epochs=1, steps=3))


def test_swapped_values_come_from_their_own_column_at_the_stated_rate():
    count, columns = 2000, 5
    table = np.arange(count * columns, dtype=np.float32).reshape(count, columns)
    twice = Augmentation(swap=0.1, copies=2, at_least=1)
    copies = swap_columns(table, twice, np.random.default_rng(0))
    assert copies.shape == (2 * count, columns)
    np.testing.assert_array_equal(copies % columns, np.tile(np.arange(columns), (2 * count, 1)))
    changed = (copies != np.tile(table, (2, 1))).mean()
    assert abs(changed - 0.1) < 5 * np.sqrt(0.1 * 0.9 / copies.size)


def test_weights_are_brought_to_mean_one(rows):
    labels = np.zeros((len(rows), 1))
    weights = np.random.default_rng(0).random((len(rows), 1)) * 7
    examples = make_examples(rows, labels, weights)
    assert examples.weights.mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("num_rows", "copies"), [(10, 2_000), (184, 109), (2_000, 10), (50_000, 3)]
)
def test_few_rows_are_copied_more_often(num_rows: int, copies: int) -> None:
    assert Augmentation().copies_of(num_rows) == copies
