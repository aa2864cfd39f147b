"""Which training a student gets: that of tables, or that of images."""

from dataclasses import dataclass

import torch

from fedistill.data import ProxySet
from fedistill.distill.cross_fitting import FEWEST_IMAGES, CrossFit, distil_cross_fitted
from fedistill.distill.image_trainer import ImageRecipe, distil_images, enough_epochs
from fedistill.distill.network_students import make_student
from fedistill.distill.networks import NETWORKS
from fedistill.distill.noise_aware import propagate_labels
from fedistill.distill.students import Student
from fedistill.distill.target import Ensemble
from fedistill.distill.trainer import Progress, train_student
from fedistill.features.affine import MODERATE

STEPS = 1500
"""Few proxy images are seen more often than `ImageRecipe.epochs` times, for at least so many."""

TARGET_POWER = 4.0
"""A denoised target is shrunk; students that learned it sharpened agreed with it most."""

FINE_TUNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a student learns, as the run config says.

    Attributes:
        student: A name that `make_student` knows.
        augmentation: "auto", "affine" or "none".
        label_propagation: Whether the target of images is spread over images that lie close.
        folds: Parts of the images, each labelled by students that learned from the others; 0: none.
        self_training: Share of the targets of images that each step of it replaces.
        epochs: Passes over images; 0 for what suits.
    """

    student: str = "mlp"
    augmentation: str = "auto"
    label_propagation: bool = False
    folds: int = 3
    self_training: float = 0.0
    epochs: int = 0

    @property
    def of_images(self) -> bool:
        """Whether rows are seen as images."""
        return self.student in NETWORKS or (self.student != "mlp" and self.augmentation == "affine")


def fresh_student(proxy: ProxySet, num_classes: int, learning: Learning) -> Student:
    """An untrained student.

    Raises:
        ConfigError: See `make_student`.
    """
    return make_student(learning.student, proxy, num_classes, as_images=learning.of_images)


def distil(
    proxy: ProxySet,
    ensemble: Ensemble,
    learning: Learning,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Student:
    """The ensemble as a student.

    Args:
        proxy: What it learns from.
        ensemble: Labels any public row.
        learning: How.
        seed: Of initial weights, order and augmentation.
        progress: Called with steps, or epochs of images, done and in all.

    Raises:
        ConfigError: See `make_student`.
    """
    target = ensemble.target
    if not learning.of_images:
        return train_student(
            proxy,
            target,
            relabel=None if learning.augmentation == "none" else ensemble.label,
            student=learning.student,
            seed=seed,
            progress=progress,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = fresh_student(proxy, target.log_odds.shape[1] + 1, learning)
    labels = target.probabilities
    if learning.label_propagation:
        labels = propagate_labels(ensemble.basis.values, labels)
    recipe = ImageRecipe(
        epochs=learning.epochs
        or enough_epochs(len(proxy.rows), epochs=ImageRecipe.epochs, steps=STEPS),
        self_training=learning.self_training,
        views=None if learning.augmentation == "none" else MODERATE,
        target_power=TARGET_POWER,
        learning_rate=FINE_TUNING_RATE
        if learning.student == "encoder"
        else ImageRecipe.learning_rate,
    )
    with torch.no_grad():
        images = student.encoding(torch.tensor(proxy.rows))
    targets = torch.from_numpy(labels)
    if learning.folds and len(images) >= learning.folds * FEWEST_IMAGES:
        distil_cross_fitted(
            student.body,
            images,
            targets,
            seed=seed,
            recipe=recipe,
            crossing=CrossFit(folds=learning.folds),
            progress=progress,
        )
    else:
        distil_images(student.body, images, targets, seed=seed, recipe=recipe, progress=progress)
    return student.eval()
