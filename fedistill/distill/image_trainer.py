"""Training a student on public images and noised soft labels: one visible loop.

Images are few beside what a network could learn by heart, and labels are noised. So every image is
seen under a new moderate transform each time, the moving average of the weights is what is kept,
and after a quarter of the training the targets move step by step towards what that average says of
them, sharpened: where the labels of like images agree, noise in one of them is forgotten
(self-training; Xie et al. 2020, "Self-training with Noisy Student improves ImageNet
classification", and Tarvainen and Valpola 2017 for the average). Post-processing of releases.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedistill.distill.averaging import Average
from fedistill.distill.progress import Progress
from fedistill.errors import ConfigError
from fedistill.features.affine import MODERATE, Affine, random_affine
from fedistill.features.batch_norm import settle

AT_ONCE = 2048
_SMALLEST = 1e-30


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """Settings of the loop.

    Attributes:
        epochs: Passes over the images, at least 1.
        batch: Images a step.
        learning_rate: Peak of a one-cycle schedule.
        weight_decay: Of AdamW.
        ema_decay: Of the moving average of the weights, in [0, 1); less in a short training, so
            that the average forgets where it began.
        views: Bounds of the transforms; None shows images as they are.
        unmoved: Chance of an image to be shown as it is all the same, in [0, 1].
        self_training: Share of the targets that each step of self-training replaces; 0 for none.
        begin: Share of the training before the first such step, in [0, 1].
        steps: Such steps in the whole training, were there no `begin`.
        sharpness: Power of the answers that become targets, at least 1.
        target_power: The same of the targets that it begins with. A denoised target is shrunk
            towards no answer, and a student that learns this blurs what the target tells apart.
    """

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.99
    views: Affine | None = MODERATE
    unmoved: float = 0.0
    self_training: float = 0.1
    begin: float = 0.25
    steps: int = 20
    sharpness: float = 2.0
    target_power: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.steps < 1:
            raise ConfigError(
                f"epochs={self.epochs}, batch={self.batch} and steps={self.steps} must be at least "
                "1, 2 and 1: raise them"
            )
        for name in ("self_training", "begin", "unmoved"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} must be from 0 to 1: use 0 for none"
                )
        for name in ("sharpness", "target_power"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1: raise it")


def enough_epochs(num_images: int, *, epochs: int, steps: int) -> int:
    """Passes over so many images that make at least `epochs`, and at least `steps` steps."""
    batches = max(1, num_images // min(ImageRecipe.batch, num_images))
    return max(epochs, math.ceil(steps / batches))


def distil_images(
    student: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int,
    recipe: ImageRecipe = ImageRecipe(),
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Fit a student in place; it comes back on the CPU, in evaluation mode.

    On a CPU equal seed, images, targets and first weights give equal weights for one number of
    threads.

    Args:
        student: Images to logits (batch, num_classes).
        images: (num_images, channels, side, side) float32, public.
        targets: (num_images, num_classes) probabilities.
        seed: Of order and transforms.
        recipe: Settings.
        device: "cpu" or "cuda", the latter in bfloat16.
        progress: Called with epochs done and epochs in all.
    """
    # The layout in which a GPU's tensor cores are fed without copies.
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    student.to(device).to(memory_format=layout).train()  # type: ignore[call-overload]
    images = images.to(device)
    targets = sharpened(targets.to(device, torch.float32), recipe.target_power)
    batch = min(recipe.batch, len(images))
    steps = max(1, len(images) // batch)
    num_steps = recipe.epochs * steps
    average = Average(student, decay=min(recipe.ema_decay, max(0.0, 1 - 5 / num_steps)))
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=device == "cuda",
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=num_steps
    )
    generator = torch.Generator().manual_seed(seed)

    for epoch in range(recipe.epochs):
        if _corrects_itself(epoch, recipe):
            with average.applied():
                answers = predict_images(student, images, device=device)
            answers = sharpened(answers, recipe.sharpness)
            targets = targets + recipe.self_training * (answers.to(device) - targets)
        order = torch.randperm(len(images), generator=generator).to(device)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            views = images[chosen]
            if recipe.views is not None:
                moved = random_affine(views, recipe.views, generator)
                if recipe.unmoved > 0:
                    still = torch.rand(len(chosen), generator=generator) < recipe.unmoved
                    moved = torch.where(still.to(device)[:, None, None, None], views, moved)
                views = moved
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = student(views)
            loss = cross_entropy(logits.float(), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            average.update()
        if progress is not None:
            progress(epoch + 1, recipe.epochs)
    average.write(average.values)
    if recipe.views is not None:
        settle(student, images)
    student.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def sharpened(probabilities: Tensor, power: float) -> Tensor:
    """Each row's probabilities to that power, (num_rows, num_classes), of sum one again."""
    raised = probabilities.clamp_min(0) ** power
    return raised / raised.sum(dim=1, keepdim=True).clamp_min(_SMALLEST)


@torch.inference_mode()
def predict_images(student: nn.Module, images: Tensor, *, device: str = "cpu") -> Tensor:
    """Class probabilities (num_images, num_classes) float32 on the CPU, in evaluation mode."""
    learning = student.training
    student.eval()
    starts = range(0, len(images), AT_ONCE)
    parts = [student(images[i : i + AT_ONCE].to(device)).float().cpu() for i in starts]
    student.train(learning)
    return torch.cat(parts).softmax(dim=1)


def _corrects_itself(epoch: int, recipe: ImageRecipe) -> bool:
    """Whether a step of self-training comes before this epoch."""
    if recipe.self_training == 0 or epoch < recipe.begin * recipe.epochs or epoch == 0:
        return False
    done, before = np.floor(np.array([epoch, epoch - 1]) * recipe.steps / recipe.epochs)
    return bool(done > before)
