"""Unstructured pruning: the smallest weights of all layers together become zero, and stay so.

Global magnitude pruning (Han et al. 2015, "Learning both Weights and Connections for Efficient
Neural Networks"), in steps, each relearned. Zeros take as much room in an ONNX file as other
numbers and as much time in its kernels; they pay where the file is compressed, as it travels.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedistill.compress.finetune import lessons_of
from fedistill.compress.prune import SHARE_A_STEP
from fedistill.distill.encoding import Rows
from fedistill.distill.progress import Progress
from fedistill.distill.students import Student

STEPS_BETWEEN = 100
LAST_STEPS = 2000


class _Masked(nn.Module):
    """Holds weights at zero where the mask is."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Weights, of any shape, with zeros."""
        return weight * self.mask


def sparsify(
    student: Student,
    proxy_rows: Rows,
    *,
    prune_ratio: float,
    seed: int,
    progress: Progress | None = None,
    steps_between: int = STEPS_BETWEEN,
    last_steps: int = LAST_STEPS,
) -> Student:
    """A student of the same shape, that share of whose weights is zero.

    Biases, BatchNorm and the layer that gives the logits are left whole.

    Args:
        student: The teacher; left as it was.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        prune_ratio: Share of the weights, in [0, 0.9].
        seed: Of fine-tuning.
        progress: Called with steps of pruning done and in all.
        steps_between: Steps of the optimizer after each of pruning but the last, at least;
        last_steps: and after the last.
    """
    pruned = copy.deepcopy(student)
    layers = [
        layer
        for layer in pruned.body.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer is not pruned.last
    ]
    steps = math.ceil(round(prune_ratio / SHARE_A_STEP, 6))
    if not steps or not layers:
        return pruned
    masks = [_Masked(layer.weight) for layer in layers]
    for layer, mask in zip(layers, masks, strict=True):
        parametrize.register_parametrization(layer, "weight", mask)
    learn = lessons_of(student, proxy_rows, seed=seed)
    for number in range(steps):
        _mask_smallest(layers, masks, prune_ratio * (number + 1) / steps)
        last = number == steps - 1
        learn(pruned, steps=last_steps if last else steps_between, seed=seed + number)
        if progress is not None:
            progress(number + 1, steps)
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight")
    return pruned.eval()


@torch.no_grad()
def _mask_smallest(layers: list[nn.Linear | nn.Conv2d], masks: list[_Masked], share: float) -> None:
    """Zero that share of all weights together."""
    sizes = torch.cat([layer.weight.abs().flatten() for layer in layers])
    count = round(share * len(sizes))
    if not count:
        return
    bound = sizes.kthvalue(count).values
    for layer, mask in zip(layers, masks, strict=True):
        mask.mask.copy_((layer.weight.abs() > bound).to(mask.mask.dtype))
