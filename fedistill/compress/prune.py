"""Structured pruning: whole channels go, a few at a time, each time relearned."""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
import torch_pruning

from fedistill.compress.importance import importance_by, set_gradients
from fedistill.distill.encoding import Rows
from fedistill.distill.progress import Progress, shifted
from fedistill.distill.students import TabularStudent, predict_log_odds, predict_probabilities
from fedistill.distill.trainer import (
    Augmentation,
    Examples,
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
    prune_by: str = "group-l1",
    seed: int,
    progress: Progress | None = None,
    epochs_a_step: int = EPOCHS_A_STEP,
    last_epochs: int = LAST_EPOCHS,
    last_steps: int = LAST_STEPS,
) -> TabularStudent:
    """A narrower student that answers like `student`, which is left as it was.

    Each step removes at most 5% of a layer's original channels, those that `importance_by` ranks
    lowest, then fine-tunes against the unpruned student's log-odds on proxy rows and on
    column-swapped copies of them. The codes of the encoding are channels too: computing them is
    most of a small student's work. The raw columns and the logits stay as they are.

    Args:
        student: The float student: where pruning starts, and the teacher after each step.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        prune_ratio: Share of the codes and of the hidden channels to remove, in [0, 0.9]; every
            layer keeps at least 4.
        prune_by: "group-l1" or "taylor".
        seed: Of the copies and the batches.
        progress: Called with optimizer steps done and in all.
        epochs_a_step: Passes over the proxy rows after each step but the last.
        last_epochs: Passes over the proxy rows after the last step,
        last_steps: and optimizer steps at least.
    """
    pruned = copy.deepcopy(student)
    plan = _plan((student.encoding.width, *student.hidden), prune_ratio)
    if not plan:
        return pruned
    examples = examples_of(student, proxy_rows, seed)
    answers = torch.from_numpy(predict_probabilities(student, proxy_rows))
    between = Recipe(epochs=epochs_a_step, steps=1)
    last = replace(between, epochs=last_epochs, steps=last_steps)
    lengths = [between.num_steps(len(proxy_rows))] * (len(plan) - 1)
    lengths.append(last.num_steps(len(proxy_rows)))

    for number, (num_codes, *widths) in enumerate(plan):
        if prune_by == "taylor":
            with torch.no_grad():
                codes = pruned.encoding(torch.tensor(proxy_rows))
            set_gradients(pruned.body, codes, answers, seed=seed + number)
        _narrow(pruned, tuple(widths), prune_by)
        _drop_codes(pruned, num_codes, prune_by)
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


def _plan(widths: tuple[int, ...], prune_ratio: float) -> list[tuple[int, ...]]:
    """Widths after each step, at most 5% of a layer's channels (at least one) apart."""
    goals = [
        min(width, max(FEWEST_CHANNELS, width - round(prune_ratio * width))) for width in widths
    ]
    strides = [max(1, math.floor(SHARE_A_STEP * width)) for width in widths]
    steps = max(
        math.ceil((width - goal) / stride)
        for width, goal, stride in zip(widths, goals, strides, strict=True)
    )
    return [
        tuple(
            max(goal, width - (step + 1) * stride)
            for width, goal, stride in zip(widths, goals, strides, strict=True)
        )
        for step in range(steps)
    ]


def _narrow(student: TabularStudent, widths: tuple[int, ...], prune_by: str) -> None:
    """Remove the weakest channels of each hidden layer until it has the width asked for."""
    codes = torch.zeros(2, student.encoding.width)
    importance = importance_by(prune_by)
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


@torch.no_grad()
def _drop_codes(student: TabularStudent, num_codes: int, prune_by: str) -> None:
    """Remove the codes that the first layer heeds least until so many are left."""
    first = student.linears[0]
    surplus = first.in_features - num_codes
    if surplus <= 0:
        return
    worth = first.weight.abs()
    if prune_by == "taylor" and first.weight.grad is not None:
        worth = worth * first.weight.grad
    kept = sorted(worth.sum(dim=0).argsort(stable=True)[surplus:].tolist())
    student.encoding = student.encoding.only(kept)
    torch_pruning.prune_linear_in_channels(first, sorted(set(range(first.in_features)) - set(kept)))


def examples_of(student: TabularStudent, proxy_rows: Rows, seed: int) -> Examples:
    """Proxy rows and swapped copies with the unpruned student's log-odds, columns of equal say."""
    copies = swap_columns(proxy_rows, Augmentation(), np.random.default_rng(seed))
    rows = np.concatenate([proxy_rows, copies])
    labels = predict_log_odds(student, rows)
    weights = np.broadcast_to(1 / np.maximum(labels.var(axis=0), 1e-12), labels.shape)
    return make_examples(rows, labels, weights)
