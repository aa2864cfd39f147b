"""A student of images that learns from labels that others checked: cross-fitting.

A network learns noised labels by heart in the end, the wrong ones too. So the images are dealt to
folds, and each fold is labelled by a student that learned from the others. What it says of an image
owes nothing to the noise in that image's own label (cross-fitting, Chernozhukov et al. 2018,
"Double/debiased machine learning for treatment and structural parameters", section 1; predicted
probabilities out of sample, Northcutt et al. 2021, "Confident Learning", section 3). The student
that is kept learns from all images, and from the mean of both labels.

How often the students agree with the target on images whose labels they never saw is a score that
reads no label but the noised ones. Post-processing of releases.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedistill.distill.image_trainer import ImageRecipe, distil_images, predict_images, sharpened
from fedistill.distill.progress import Progress, shifted
from fedistill.errors import ConfigError

FEWEST_IMAGES = 10
"""Of a fold."""


@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """How labels are checked.

    Attributes:
        folds: Parts of the images, at least 2; each costs a training on all others.
        share: Of the others' labels in what the student learns, in (0, 1].
    """

    folds: int = 3
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds={self.folds} must be at least 2: raise it")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share} must be above 0 and at most 1: change it")


def distil_cross_fitted(
    student: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int,
    recipe: ImageRecipe,
    crossing: CrossFit = CrossFit(),
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Fit a student in place, as `distil_images` does, on labels that others checked.

    Args:
        student: Images to logits (batch, num_classes).
        images: (num_images, channels, side, side) float32, public.
        targets: (num_images, num_classes) probabilities.
        seed: Of folds, order and transforms.
        recipe: Settings of every training.
        crossing: Settings of the check.
        device: "cpu" or "cuda".
        progress: Called with epochs done and epochs in all, those of the others included.

    Raises:
        ConfigError: There are too few images.
    """
    checked = checked_labels(
        student,
        images,
        targets,
        seed=seed,
        recipe=recipe,
        folds=crossing.folds,
        device=device,
        progress=shifted(progress, 0, (crossing.folds + 1) * recipe.epochs),
    )
    distil_images(
        student,
        images,
        mixed(targets, checked, recipe, crossing.share),
        seed=seed,
        recipe=replace(recipe, target_power=1.0),
        device=device,
        progress=shifted(
            progress, crossing.folds * recipe.epochs, (crossing.folds + 1) * recipe.epochs
        ),
    )


def checked_labels(
    student: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int,
    recipe: ImageRecipe,
    folds: int = CrossFit.folds,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Tensor:
    """Probabilities (num_images, num_classes) by copies of the student that never saw the label.

    `student` stays as it is; for the rest, see `distil_cross_fitted`.

    Raises:
        ConfigError: There are too few images.
    """
    fold = _folds(len(images), folds, seed)
    checked = torch.empty(targets.shape, dtype=torch.float32)
    for number in range(folds):
        other, held = copy.deepcopy(student), fold == number
        distil_images(
            other,
            images[~held],
            targets[~held],
            seed=seed,
            recipe=recipe,
            device=device,
            progress=shifted(progress, number * recipe.epochs, folds * recipe.epochs),
        )
        checked[held] = predict_images(other.to(device), images[held], device=device)
    return checked


def mixed(targets: Tensor, checked: Tensor, recipe: ImageRecipe, share: float) -> Tensor:
    """What the student learns: the target, sharpened as in the recipe, and the others' labels."""
    own = sharpened(targets.float(), recipe.target_power)
    return own + share * (checked - own)


def _folds(num_images: int, folds: int, seed: int) -> Tensor:
    """The fold of each image, (num_images,), as even as can be."""
    if num_images < folds * FEWEST_IMAGES:
        raise ConfigError(
            f"images={num_images} must be at least {folds * FEWEST_IMAGES} for {folds} folds: "
            "bring more images, or learn from the target alone"
        )
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(num_images, dtype=torch.long)
    fold[order] = torch.arange(num_images) % folds
    return fold
