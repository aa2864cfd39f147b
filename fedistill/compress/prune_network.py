"""Structured pruning of networks: the weakest channels go, a few at a time, each time relearned.

The graph of what depends on a channel, shortcuts and depthwise convolutions included, is that of
torch-pruning (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning"); attention heads are
removed by `narrow_transformer`.
"""

import copy
import math
from collections.abc import Callable

import torch
import torch_pruning
from torch import Tensor, nn

from fedistill.compress.importance import importance_by, set_gradients
from fedistill.compress.prune import SHARE_A_STEP
from fedistill.compress.prune_heads import narrow_transformer
from fedistill.distill.encoding import Rows
from fedistill.distill.image_trainer import (
    ImageRecipe,
    distil_images,
    enough_epochs,
    predict_images,
)
from fedistill.distill.network_students import NetworkStudent
from fedistill.distill.networks import NETWORKS, VisionTransformer, shape_like
from fedistill.distill.progress import Progress, shifted
from fedistill.distill.students import Student
from fedistill.features.affine import MODERATE, random_affine

STEPS_BETWEEN = 40
LAST_STEPS = 800
EMA_DECAY = 0.95
PRUNED_LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)

Narrow = Callable[[], object]


def why_not_pruned(student: Student) -> str | None:
    """Why channels of the student are not removed, in a sentence; None where they are.

    A network of one's own is pruned where all its layers with weights are of `PRUNED_LAYERS`, and a
    trial shows that it works without some of its channels and can be built again from its weights.
    """
    if not isinstance(student, NetworkStudent) or student.name in NETWORKS:
        return None
    for name, layer in student.body.named_modules():
        known = isinstance(layer, PRUNED_LAYERS)
        if isinstance(layer, nn.Conv2d) and layer.groups not in (1, layer.out_channels):
            known = False
        if not known and next(layer.parameters(recurse=False), None) is not None:
            return (
                f"Channels of {student.name} are not pruned: its {type(layer).__name__} "
                f"{name.removeprefix('network.')!r} is no layer whose channels can go "
                f"({', '.join(each.__name__ for each in PRUNED_LAYERS)})."
            )
    try:
        _try(student)
    # The network is the user's: pruning it may fail in any way, and the float student ships then.
    except Exception as error:
        return (
            f"Channels of {student.name} are not pruned: without some of them it does not work "
            f"({type(error).__name__}: {error})."
        )
    return None


def prune_network(
    student: NetworkStudent,
    proxy_rows: Rows,
    *,
    prune_ratio: float,
    prune_by: str = "group-l1",
    seed: int,
    progress: Progress | None = None,
    steps_between: int = STEPS_BETWEEN,
    last_steps: int = LAST_STEPS,
) -> NetworkStudent:
    """A narrower student that answers like `student`, which is left as it was.

    Each step removes at most 5% of the channels of every layer, but one head at least where heads
    go, then fine-tunes against the unpruned student's answers on proxy rows and, of images, on
    moved copies of them.

    Args:
        student: Where pruning starts, and the teacher after each step; `why_not_pruned` says None.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        prune_ratio: Share of the channels to remove, in [0, 0.9].
        prune_by: "group-l1" or "taylor".
        seed: Of the copies and the batches.
        progress: Called with epochs done and in all.
        steps_between: Steps of the optimizer after each of pruning but the last, at least; it
            always takes a whole pass over rows and copies.
        last_steps: The same after the last.
    """
    pruned = copy.deepcopy(student)
    steps = math.ceil(round(prune_ratio / SHARE_A_STEP, 6))
    if not steps:
        return pruned
    inputs = inputs_of(student, proxy_rows, seed)
    answers = predict_images(student.body, inputs)
    narrow = _narrowing(pruned, student, inputs[:2], prune_ratio, steps, prune_by)
    lengths = [steps_between] * (steps - 1) + [last_steps]
    epochs = [enough_epochs(len(inputs), epochs=1, steps=length) for length in lengths]
    for number in range(steps):
        if prune_by == "taylor":
            set_gradients(pruned.body, inputs, answers, seed=seed + number)
        narrow()
        distil_images(
            pruned.body,
            inputs,
            answers,
            seed=seed + number,
            recipe=ImageRecipe(
                epochs=epochs[number], views=None, self_training=0.0, ema_decay=EMA_DECAY
            ),
            progress=shifted(progress, sum(epochs[:number]), sum(epochs)),
        )
    return pruned.eval()


def inputs_of(student: NetworkStudent, proxy_rows: Rows, seed: int) -> Tensor:
    """Proxy rows as the body takes them, and of images a moved copy of each."""
    with torch.no_grad():
        inputs: Tensor = student.encoding(torch.tensor(proxy_rows))
    if student.encoding.shape is None:
        return inputs
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([inputs, random_affine(inputs, MODERATE, generator)])


def _narrowing(
    pruned: NetworkStudent,
    whole: NetworkStudent,
    example: Tensor,
    prune_ratio: float,
    steps: int,
    prune_by: str,
) -> Narrow:
    """What, called `steps` times, removes the share `prune_ratio` of the channels of `pruned`."""
    body, before = pruned.body, whole.body
    if isinstance(body, VisionTransformer) and isinstance(before, VisionTransformer):
        shares = iter([prune_ratio * (number + 1) / steps for number in range(steps)])
        return lambda: narrow_transformer(body, before, share=next(shares), prune_by=prune_by)
    pruner = torch_pruning.pruner.BasePruner(
        body,
        example,
        importance=importance_by(prune_by),
        pruning_ratio=prune_ratio,
        iterative_steps=steps,
        ignored_layers=[
            layer
            for layer in body.modules()
            if layer is pruned.last
            # What gives the classes of a network of one's own, which `last` only scales.
            or (isinstance(layer, nn.Linear) and layer.out_features == pruned.num_classes)
        ],
    )
    step: Narrow = pruner.step
    return step


@torch.no_grad()
def _try(student: NetworkStudent) -> None:
    """Prune a copy and build it again from its weights; raises whatever goes wrong."""
    example = student.encoding(torch.zeros(2, student.num_columns))
    pruned = copy.deepcopy(student).eval()
    with torch.enable_grad():
        _narrowing(pruned, student, example, 0.5, 1, "group-l1")()
    if pruned.num_parameters == student.num_parameters:
        raise RuntimeError("half of them were to go, and none went")
    rebuilt = copy.deepcopy(student.body).eval()
    state = pruned.body.state_dict()
    shape_like(rebuilt, state)
    rebuilt.load_state_dict(state)
    answers = pruned.body(example)
    if answers.shape != (2, student.num_classes) or not torch.equal(answers, rebuilt(example)):
        raise RuntimeError("it does not answer as before when built again")
