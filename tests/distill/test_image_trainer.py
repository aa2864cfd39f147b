"""Training on images and noised labels: what it learns, repeats, mixes in and refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fedistill.distill.image_trainer import (
    ImageRecipe,
    _corrects_itself,
    distil_images,
    enough_epochs,
    predict_images,
    sharpened,
)
from fedistill.distill.networks import NETWORKS
from fedistill.errors import ConfigError
from fedistill.features.images import ImageShape

QUICK = ImageRecipe(epochs=2, batch=32)


def digits(num_rows: int) -> tuple[Tensor, np.ndarray]:
    data = load_digits()
    images = torch.tensor(data.data[:num_rows], dtype=torch.float32).reshape(-1, 1, 8, 8)
    return (images - images.mean()) / images.std(), data.target[:num_rows]


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS["cnn"](ImageShape(channels=1, side=8), 10)


def trained(recipe: ImageRecipe, *, seed: int = 0, num_rows: int = 96) -> nn.Module:
    images, labels = digits(num_rows)
    student = network()
    distil_images(student, images, torch.eye(10)[labels], seed=seed, recipe=recipe)
    return student


def same(first: nn.Module, second: nn.Module) -> bool:
    weights = second.state_dict()
    return all(torch.equal(each, weights[name]) for name, each in first.state_dict().items())


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first = trained(QUICK)
    assert same(first, trained(QUICK))
    assert not same(first, trained(QUICK, seed=1))


def test_a_student_corrects_what_its_labels_have_wrong() -> None:
    """Three labels in ten drawn anew: the student gets at least half of the wrong ones right.

    Seeds are fixed; the student gets 85% of them right, and a student that learnt its labels by
    heart would get none.
    """
    images, labels = digits(900)
    random = np.random.default_rng(0)
    noised = np.where(random.random(900) < 0.3, random.integers(0, 10, 900), labels)
    student = network()
    recipe = ImageRecipe(epochs=25, batch=64, ema_decay=0.95)
    distil_images(student, images, torch.eye(10)[noised], seed=0, recipe=recipe)
    says = predict_images(student, images).argmax(dim=1).numpy()
    wrong = noised != labels
    assert (says == labels)[wrong].mean() > 0.5
    assert (says == labels).mean() > 0.85


@pytest.mark.parametrize(
    ("epochs", "begin", "expected"), [(40, 0.25, 15), (20, 0.0, 19), (10, 0.5, 5), (100, 0.9, 2)]
)
def test_self_training_takes_its_steps_after_its_beginning(
    epochs: int, begin: float, expected: int
) -> None:
    recipe = ImageRecipe(epochs=epochs, begin=begin)
    taken = [epoch for epoch in range(epochs) if _corrects_itself(epoch, recipe)]
    assert len(taken) == expected
    assert min(taken) >= begin * epochs


def test_no_share_is_no_self_training() -> None:
    never = ImageRecipe(self_training=0)
    assert not any(_corrects_itself(epoch, never) for epoch in range(never.epochs))


def test_transforms_matter_and_can_be_left_out() -> None:
    assert not same(trained(QUICK), trained(replace(QUICK, views=None)))


def test_all_images_unmoved_are_as_good_as_no_transforms() -> None:
    """One draws transforms and throws them away, so orders differ: both learn the images alone."""
    shown: list[Tensor] = []

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, images: Tensor) -> Tensor:
            shown.append(images)
            logits: Tensor = self.network(images)
            return logits

    images, labels = digits(96)
    distil_images(Seen(), images, torch.eye(10)[labels], seed=0, recipe=replace(QUICK, unmoved=1.0))
    known = {image.numpy().tobytes() for image in images}
    assert {image.numpy().tobytes() for batch in shown for image in batch} == known
    half = [*shown]
    shown.clear()
    distil_images(Seen(), images, torch.eye(10)[labels], seed=0, recipe=replace(QUICK, unmoved=0.5))
    still = sum(image.numpy().tobytes() in known for batch in shown[: len(half)] for image in batch)
    assert still > 0.25 * 192


def test_what_is_kept_knows_images_as_they_are() -> None:
    """Each BatchNorm has the statistics of what comes to it when images are shown unmoved."""
    images, _ = digits(96)
    student = trained(QUICK)
    (first, norm) = next(iter(student.children()))
    with torch.no_grad():
        variance, mean = torch.var_mean(first(images), dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, variance, atol=1e-5, rtol=1e-4)


@given(
    rows=st.lists(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), min_size=1, max_size=5),
    power=st.floats(1, 6),
)
def test_sharpening_keeps_distributions_and_their_order(
    rows: list[list[float]], power: float
) -> None:
    given_rows = torch.tensor(rows, dtype=torch.float64) + 0.01
    given_rows /= given_rows.sum(dim=1, keepdim=True)
    found = sharpened(given_rows, power)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(rows), dtype=torch.float64))
    assert (found.max(dim=1).values >= given_rows.max(dim=1).values - 1e-9).all()
    top = given_rows.argmax(dim=1, keepdim=True)
    assert (found.gather(1, top) >= found - 1e-9).all()


def test_noised_entries_below_zero_are_nothing_to_sharpen() -> None:
    found = sharpened(torch.tensor([[-0.1, 0.6, 0.5]]), 2.0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.36, 0.25]]) / 0.61)


@given(num_images=st.integers(2, 5000), steps=st.integers(1, 3000))
def test_enough_epochs_make_the_steps_and_hardly_more(num_images: int, steps: int) -> None:
    batches = max(1, num_images // min(ImageRecipe.batch, num_images))
    epochs = enough_epochs(num_images, epochs=1, steps=steps)
    assert epochs * batches >= steps
    assert epochs == 1 or (epochs - 1) * batches < steps


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch", 1),
        ("steps", 0),
        ("self_training", 1.5),
        ("begin", -0.1),
        ("unmoved", 1.1),
        ("sharpness", 0.5),
        ("target_power", float("inf")),
    ],
)
def test_settings_out_of_bounds_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}={value}"):
        ImageRecipe(**{field: value})  # type: ignore[arg-type]
