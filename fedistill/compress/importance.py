"""What a channel is worth: the sum of its weights, or what its loss would change.

`group-l1` ranks a channel by the L1 norm of all weights that go with it, incoming and outgoing (Li
et al. 2017, "Pruning Filters for Efficient ConvNets", with the grouping of Fang et al. 2023,
"DepGraph: Towards Any Structural Pruning"). `taylor` ranks it by the first-order change of the
loss, |weight x gradient| (Molchanov et al. 2019, "Importance Estimation for Neural Network
Pruning", equations 7 and 8). The gradient of the distillation loss vanishes at the student that
teaches, so labels are drawn from that student's own answers: the root mean square of the gradients
is then the diagonal of its Fisher information (Theis et al. 2018, "Faster Gaze Prediction with
Dense Networks and Fisher Pruning", section 2).
"""

from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

BATCHES = 16
BATCH = 128


def importance_by(prune_by: str) -> Any:
    """What torch-pruning ranks channels by; `taylor` wants `set_gradients` before each ranking."""
    if prune_by == "taylor":
        return torch_pruning.importance.GroupTaylorImportance()
    return torch_pruning.importance.GroupMagnitudeImportance(p=1)


def set_gradients(body: nn.Module, inputs: Tensor, answers: Tensor, *, seed: int) -> None:
    """Leave in each weight's `grad` the root mean square of its gradient over batches.

    Args:
        body: Inputs to logits (batch, num_classes); left in evaluation mode.
        inputs: (num_inputs, ...) float32, at least one.
        answers: (num_inputs, num_classes) probabilities from which labels are drawn.
        seed: Of the batches and the labels.
    """
    generator = torch.Generator().manual_seed(seed)
    body.eval()
    squares = {name: torch.zeros_like(weight) for name, weight in body.named_parameters()}
    for _ in range(BATCHES):
        chosen = torch.randint(len(inputs), (BATCH,), generator=generator)
        labels = torch.multinomial(answers[chosen], 1, generator=generator)[:, 0]
        body.zero_grad()
        cross_entropy(body(inputs[chosen]), labels).backward()  # type: ignore[no-untyped-call]
        for name, weight in body.named_parameters():
            if weight.grad is not None:
                squares[name] += weight.grad**2 / BATCHES
    for name, weight in body.named_parameters():
        weight.grad = squares[name].sqrt()
