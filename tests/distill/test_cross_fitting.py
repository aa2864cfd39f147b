"""Cross-fitting: labels by students that never saw them, and what a student makes of both."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedistill.distill import cross_fitting
from fedistill.distill.cross_fitting import (
    FEWEST_IMAGES,
    CrossFit,
    _folds,
    checked_labels,
    distil_cross_fitted,
    mixed,
)
from fedistill.distill.image_trainer import ImageRecipe, distil_images, predict_images
from fedistill.errors import ConfigError
from tests.distill.test_image_trainer import digits, network, same

QUICK = ImageRecipe(epochs=2, batch=32, self_training=0)
THOROUGH = ImageRecipe(epochs=25, batch=64, ema_decay=0.95, self_training=0, views=None)


@given(num_images=st.integers(20, 500), folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_image_is_in_one_fold_and_folds_are_even(
    num_images: int, folds: int, seed: int
) -> None:
    if num_images < folds * FEWEST_IMAGES:
        with pytest.raises(ConfigError, match=f"images={num_images}"):
            _folds(num_images, folds, seed)
        return
    sizes = np.bincount(_folds(num_images, folds, seed).numpy(), minlength=folds)
    assert len(sizes) == folds
    assert sizes.sum() == num_images
    assert sizes.max() - sizes.min() <= 1


def test_no_label_reaches_what_others_say_of_its_image() -> None:
    """Another label of one image changes no bit of its checked label, and changes other images'."""
    images, labels = digits(96)
    targets = torch.eye(10)[labels]
    other = targets.clone()
    other[5] = torch.eye(10)[(labels[5] + 1) % 10]
    first, second = (
        checked_labels(network(), images, each, seed=0, recipe=QUICK) for each in (targets, other)
    )
    assert torch.equal(first[5], second[5])
    assert not torch.equal(first, second)


def test_checking_leaves_the_student_as_it_was() -> None:
    images, labels = digits(96)
    student = network()
    before = copy.deepcopy(student)
    checked = checked_labels(student, images, torch.eye(10)[labels], seed=0, recipe=QUICK)
    assert same(student, before)
    torch.testing.assert_close(checked.sum(dim=1), torch.ones(96))


def test_a_student_gets_right_what_it_would_have_learnt_wrong_by_heart() -> None:
    """Two labels in ten drawn anew; seeds are fixed. By heart it gets few of the wrong ones right
    (a seventh of them with these seeds), from checked labels most."""
    images, labels = digits(600)
    random = np.random.default_rng(0)
    noised = np.where(random.random(600) < 0.2, random.integers(0, 10, 600), labels)
    targets, wrong = torch.eye(10)[noised], noised != labels
    by_heart, checked = network(), network()
    distil_images(by_heart, images, targets, seed=0, recipe=THOROUGH)
    distil_cross_fitted(
        checked, images, targets, seed=0, recipe=THOROUGH, crossing=CrossFit(share=1.0)
    )

    def right(student: nn.Module) -> float:
        says = predict_images(student, images).argmax(dim=1).numpy()
        return float((says == labels)[wrong].mean())

    assert right(checked) > 0.8
    assert right(by_heart) < right(checked) - 0.3


def test_progress_counts_all_trainings_and_never_falls() -> None:
    images, labels = digits(96)
    told: list[tuple[int, int]] = []
    distil_cross_fitted(
        network(),
        images,
        torch.eye(10)[labels],
        seed=0,
        recipe=QUICK,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 8) for done in range(1, 9)]


def test_the_student_learns_the_share_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits(96)
    targets, learnt = torch.eye(10)[labels] * 0.6 + 0.04, []
    monkeypatch.setattr(
        cross_fitting,
        "distil_images",
        lambda student, images, targets, **named: learnt.append((targets, named["recipe"])),
    )
    recipe = replace(QUICK, target_power=2.0)
    distil_cross_fitted(
        network(), images, targets, seed=0, recipe=recipe, crossing=CrossFit(folds=2, share=0.25)
    )
    checked = checked_labels(network(), images, targets, seed=0, recipe=recipe, folds=2)
    # Sharpened once: what the student gets must not be raised to that power again.
    assert learnt[2][1].target_power == 1
    torch.testing.assert_close(learnt[2][0], mixed(targets, checked, recipe, 0.25))
    squared = targets**2 / (targets**2).sum(dim=1, keepdim=True)
    torch.testing.assert_close(learnt[2][0], 0.75 * squared + 0.25 * checked)


@pytest.mark.parametrize(("field", "value"), [("folds", 1), ("share", 0.0), ("share", 1.5)])
def test_settings_out_of_bounds_are_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}={value}"):
        CrossFit(**{field: value})  # type: ignore[arg-type]
