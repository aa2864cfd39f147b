"""Structured pruning of networks for images: the weakest channels go, a few at a time.

The graph of what depends on a channel, shortcuts and depthwise convolutions included, is that of
torch-pruning (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning"); channels are ranked
by their group's L1 norm (Li et al. 2017, "Pruning Filters for Efficient ConvNets").
"""

import copy
import math

import torch
import torch_pruning
from torch import Tensor

from fedistill.compress.prune import SHARE_A_STEP, shifted
from fedistill.distill.encoding import Rows
from fedistill.distill.image_trainer import (
    ImageRecipe,
    distil_images,
    enough_epochs,
    predict_images,
)
from fedistill.distill.network_students import NetworkStudent
from fedistill.distill.networks import PRUNABLE
from fedistill.distill.students import Student
from fedistill.distill.trainer import Progress
from fedistill.features.affine import MODERATE, random_affine

STEPS_BETWEEN = 40
LAST_STEPS = 800
EMA_DECAY = 0.95


def why_not_pruned(student: Student) -> str | None:
    """Why channels of the student are not removed, in a sentence; None where they are."""
    if student.name in ("mlp", *PRUNABLE):
        return None
    if student.name == "vit":
        return "Channels of a vit are not pruned: they are tied across its shortcuts and heads."
    return f"Channels of {student.name} are not pruned: what depends on them is not known."


def prune_network(
    student: NetworkStudent,
    proxy_rows: Rows,
    *,
    prune_ratio: float,
    seed: int,
    progress: Progress | None = None,
    steps_between: int = STEPS_BETWEEN,
    last_steps: int = LAST_STEPS,
) -> NetworkStudent:
    """A narrower student that answers like `student`, which is left as it was.

    Each step removes at most 5% of the channels of every convolution, then fine-tunes against the
    unpruned student's answers on proxy images and on moved copies of them.

    Args:
        student: A "cnn" or "resnet": where pruning starts, and the teacher after each step.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        prune_ratio: Share of the channels to remove, in [0, 0.9].
        seed: Of the copies and the batches.
        progress: Called with epochs done and in all.
        steps_between: Steps of the optimizer after each of pruning but the last, at least; it
            always takes a whole pass over images and copies.
        last_steps: The same after the last.
    """
    pruned = copy.deepcopy(student)
    steps = math.ceil(round(prune_ratio / SHARE_A_STEP, 6))
    if not steps:
        return pruned
    images = _with_copies(student, proxy_rows, seed)
    answers = predict_images(student.body, images)
    pruner = torch_pruning.pruner.BasePruner(
        pruned.body,
        images[:2],
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=prune_ratio,
        iterative_steps=steps,
        ignored_layers=[pruned.last],
    )
    lengths = [steps_between] * (steps - 1) + [last_steps]
    epochs = [enough_epochs(len(images), epochs=1, steps=length) for length in lengths]
    for number in range(steps):
        pruner.step()
        distil_images(
            pruned.body,
            images,
            answers,
            seed=seed + number,
            recipe=ImageRecipe(
                epochs=epochs[number], views=None, self_training=0.0, ema_decay=EMA_DECAY
            ),
            progress=shifted(progress, sum(epochs[:number]), sum(epochs)),
        )
    return pruned.eval()


def _with_copies(student: NetworkStudent, proxy_rows: Rows, seed: int) -> Tensor:
    """Images as the body takes them, and a moved copy of each."""
    with torch.no_grad():
        images: Tensor = student.encoding(torch.tensor(proxy_rows))
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([images, random_affine(images, MODERATE, generator)])
