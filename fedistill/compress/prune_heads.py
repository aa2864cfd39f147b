"""Structured pruning of a vision transformer: whole heads, and the wide layer between them.

The width of the patches stays, since shortcuts tie it through all blocks. A head is worth what its
rows of queries, keys and values and its columns of the output are (Michel et al. 2019, "Are Sixteen
Heads Really Better than One?"), by the same importance as a channel.
"""

import torch
import torch_pruning
from torch import Tensor, nn

from fedistill.distill.networks import Attending, VisionTransformer

FEWEST_WIDE = 4


@torch.no_grad()
def narrow_transformer(
    network: VisionTransformer, whole: VisionTransformer, *, share: float, prune_by: str
) -> None:
    """Remove the weakest heads and wide channels until `share` of the whole's are gone.

    Args:
        network: Narrowed in place; `set_gradients` comes first where `prune_by` is "taylor".
        whole: What it was before any pruning; every block keeps a head and 4 wide channels.
        share: In [0, 1).
        prune_by: "group-l1" or "taylor".
    """
    for block, before in zip(network.blocks, whole.blocks, strict=True):
        if not isinstance(block, Attending) or not isinstance(before, Attending):
            raise TypeError(f"{type(block).__name__} is no block whose heads are known")
        heads = _heads(before)
        _drop_heads(block, max(1, heads - round(share * heads)), prune_by)
        width = _wide(before)[0].out_features
        _drop_wide(block, max(FEWEST_WIDE, width - round(share * width)), prune_by)


def _heads(block: Attending) -> int:
    return block.query.out_features // block.head_size


def _wide(block: Attending) -> tuple[nn.Linear, nn.Linear]:
    first, second = (layer for layer in block.wide if isinstance(layer, nn.Linear))
    return first, second


def _drop_heads(block: Attending, left: int, prune_by: str) -> None:
    rows = [_worth(part, prune_by).sum(dim=1) for part in (block.query, block.key, block.value)]
    channels = torch.stack([*rows, _worth(block.out, prune_by).sum(dim=0)]).sum(dim=0)
    worth = channels.reshape(-1, block.head_size).sum(dim=1)
    weakest = worth.argsort(stable=True)[: max(0, len(worth) - left)].tolist()
    gone = [head * block.head_size + place for head in weakest for place in range(block.head_size)]
    for part in (block.query, block.key, block.value):
        torch_pruning.prune_linear_out_channels(part, gone)
    torch_pruning.prune_linear_in_channels(block.out, gone)


def _drop_wide(block: Attending, left: int, prune_by: str) -> None:
    first, second = _wide(block)
    worth = _worth(first, prune_by).sum(dim=1) + _worth(second, prune_by).sum(dim=0)
    weakest = worth.argsort(stable=True)[: max(0, len(worth) - left)].tolist()
    torch_pruning.prune_linear_out_channels(first, weakest)
    torch_pruning.prune_linear_in_channels(second, weakest)


def _worth(layer: nn.Linear, prune_by: str) -> Tensor:
    if prune_by == "taylor" and layer.weight.grad is not None:
        return (layer.weight * layer.weight.grad).abs()
    return layer.weight.abs()
