"""Structured pruning: whole hidden channels go, a few at a time, each time relearned."""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
import torch_pruning

from fedistill.distill.encoding import Rows
from fedistill.distill.students import TabularStudent, predict_log_odds
from fedistill.distill.trainer import (
    Augmentation,
    Examples,
    Progress,
    Recipe,
    make_examples,
    optimise,
    swap_columns,
)

SHARE_A_STEP = 0.05
FEWEST_CHANNELS = 4
EPOCHS_A_STEP = 2
LAST_EPOCHS = 15
LAST_STEPS = 2000


def prune_student(
    student: TabularStudent,
    proxy_rows: Rows,
    *,
    prune_ratio: float,
    seed: int,
    progress: Progress | None = None,
    epochs_a_step: int = EPOCHS_A_STEP,
    last_epochs: int = LAST_EPOCHS,
    last_steps: int = LAST_STEPS,
) -> TabularStudent:
    """A narrower student that answers like `student`, which is left as it was.

    Each step removes at most 5% of a layer's original channels, those of smallest group L1 norm
    (incoming and outgoing weights together; Li et al. 2017, "Pruning Filters for Efficient
    ConvNets", with the grouping of Fang et al. 2023, "DepGraph"), then fine-tunes against the
    unpruned student's log-odds on proxy rows and on column-swapped copies of them. The encoding
    and the logits keep their widths.

    Args:
        student: The float student: where pruning starts, and the teacher after each step.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        prune_ratio: Share of the hidden channels to remove, in [0, 0.9]; every hidden layer keeps
            at least 4.
        seed: Of the copies and the batches.
        progress: Called with optimizer steps done and in all.
        epochs_a_step: Passes over the proxy rows after each step but the last.
        last_epochs: Passes over the proxy rows after the last step,
        last_steps: and optimizer steps at least.
    """
    pruned = copy.deepcopy(student)
    plan = _plan(student.hidden, prune_ratio)
    if not plan:
        return pruned
    examples = _examples(student, proxy_rows, seed)
    between = Recipe(epochs=epochs_a_step, steps=1)
    last = replace(between, epochs=last_epochs, steps=last_steps)
    lengths = [between.num_steps(len(proxy_rows))] * (len(plan) - 1)
    lengths.append(last.num_steps(len(proxy_rows)))

    for number, widths in enumerate(plan):
        _narrow(pruned, widths)
        before = sum(lengths[:number])
        optimise(
            pruned,
            examples,
            between,
            num_steps=lengths[number],
            seed=seed + number,
            progress=shifted(progress, before, sum(lengths)),
        )
    return pruned


def _plan(hidden: tuple[int, ...], prune_ratio: float) -> list[tuple[int, ...]]:
    """Hidden widths after each step, at most 5% of a layer's channels (at least one) apart."""
    goals = [
        min(width, max(FEWEST_CHANNELS, width - round(prune_ratio * width))) for width in hidden
    ]
    strides = [max(1, math.floor(SHARE_A_STEP * width)) for width in hidden]
    steps = max(
        math.ceil((width - goal) / stride)
        for width, goal, stride in zip(hidden, goals, strides, strict=True)
    )
    return [
        tuple(
            max(goal, width - (step + 1) * stride)
            for width, goal, stride in zip(hidden, goals, strides, strict=True)
        )
        for step in range(steps)
    ]


def _narrow(student: TabularStudent, widths: tuple[int, ...]) -> None:
    """Remove the weakest channels of each hidden layer until it has the width asked for."""
    codes = torch.zeros(2, student.encoding.width)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    for layer, width in zip(student.linears[:-1], widths, strict=True):
        surplus = layer.out_features - width
        if surplus <= 0:
            continue
        graph = torch_pruning.DependencyGraph().build_dependency(student.body, example_inputs=codes)
        prune = torch_pruning.prune_linear_out_channels
        everything = list(range(layer.out_features))
        scores = importance(graph.get_pruning_group(layer, prune, idxs=everything))
        weakest = scores.argsort(stable=True)[:surplus].tolist()
        graph.get_pruning_group(layer, prune, idxs=weakest).prune()


def _examples(student: TabularStudent, proxy_rows: Rows, seed: int) -> Examples:
    """Proxy rows and swapped copies with the unpruned student's log-odds, columns of equal say."""
    copies = swap_columns(proxy_rows, Augmentation(), np.random.default_rng(seed))
    rows = np.concatenate([proxy_rows, copies])
    labels = predict_log_odds(student, rows)
    weights = np.broadcast_to(1 / np.maximum(labels.var(axis=0), 1e-12), labels.shape)
    return make_examples(rows, labels, weights)


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part as that of the whole, `before` of whose `total` were done earlier."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
