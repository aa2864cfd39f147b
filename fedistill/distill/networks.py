"""Networks for square images, each small enough to ship.

`cnn`: depthwise-separable convolutions (Howard et al. 2017, "MobileNets", section 3.1). `resnet`:
residual blocks of two convolutions (He et al. 2016, "Deep Residual Learning", section 3.2). Both
have BatchNorm after each convolution, which `folded` melts into it before export. `vit`: a vision
transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1) with the mean
over patches in place of a class token, and with a Linear of its own for queries, keys and values.
`encoder`: the network of `features.self_supervised`, which may begin with an encoder's weights.
"""

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fedistill.features.images import ImageShape
from fedistill.features.self_supervised import ENCODER_STRIDES, ENCODER_WIDTHS

PATCH = 4


def cnn(shape: ImageShape, num_classes: int) -> nn.Module:
    """Images (batch, channels, side, side) to logits."""
    return nn.Sequential(
        _convolution(shape.channels, 32, 3),
        nn.ReLU(),
        *_separable(32, 64, stride=2),
        *_separable(64, 128, stride=2),
        *_separable(128, 128, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def resnet(shape: ImageShape, num_classes: int) -> nn.Module:
    """Images (batch, channels, side, side) to logits."""
    return nn.Sequential(
        _convolution(shape.channels, 24, 3),
        nn.ReLU(),
        Residual(24, 24, stride=1),
        Residual(24, 48, stride=2),
        Residual(48, 96, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, num_classes),
    )


def vit(shape: ImageShape, num_classes: int) -> nn.Module:
    """Images (batch, channels, side, side) to logits."""
    return VisionTransformer(shape, num_classes)


def encoder(
    shape: ImageShape, num_classes: int, widths: Sequence[int] = ENCODER_WIDTHS
) -> nn.Module:
    """Images (batch, channels, side, side) to logits; `widths` are those of the convolutions."""
    body, before = nn.Sequential(), shape.channels
    for width, stride in zip(widths, ENCODER_STRIDES, strict=True):
        body.extend([_convolution(before, width, 3, stride=stride), nn.ReLU()])
        before = width
    return body.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)])


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.first = _convolution(before, after, 3, stride=stride)
        self.second = _convolution(after, after, 3)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(before, after, 1, stride=stride)

    def forward(self, values: Tensor) -> Tensor:
        """(batch, before, side, side) to (batch, after, side / stride, side / stride)."""
        added: Tensor = self.second(self.first(values).relu()) + self.shortcut(values)
        return added.relu()


class VisionTransformer(nn.Module):
    """Patches of 4 by 4 pixels, attention among them, and the mean of what comes of it."""

    def __init__(
        self,
        shape: ImageShape,
        num_classes: int,
        *,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        rest = -shape.side % PATCH
        self.pad = nn.ZeroPad2d((0, rest, 0, rest))
        self.patches = nn.Conv2d(shape.channels, width, PATCH, stride=PATCH)
        count = math.ceil(shape.side / PATCH) ** 2
        self.places = nn.Parameter(torch.randn(1, count, width) * 0.02)
        self.blocks = nn.Sequential(*(Attending(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, side, side) to logits."""
        patches = self.patches(self.pad(images)).flatten(2).transpose(1, 2)
        logits: Tensor = self.last(self.norm(self.blocks(patches + self.places)).mean(dim=1))
        return logits


class Attending(nn.Module):
    """A block of a transformer, normalised before each part. As many heads as the widths hold."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_size = width // heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """(batch, patches, width) to the same."""
        patches = patches + self._attend(self.norms[0](patches))
        widened: Tensor = patches + self.wide(self.norms[1](patches))
        return widened

    def _attend(self, patches: Tensor) -> Tensor:
        # Not `len`, which would fix the size of the batch on export.
        size = (patches.shape[0], patches.shape[1], -1, self.head_size)
        asked = (part(patches).reshape(size).transpose(1, 2) for part in self._parts())
        attended = scaled_dot_product_attention(*asked).transpose(1, 2)
        out: Tensor = self.out(attended.flatten(2))
        return out

    def _parts(self) -> tuple[nn.Linear, ...]:
        return self.query, self.key, self.value


NETWORKS: dict[str, Callable[[ImageShape, int], nn.Module]] = {
    "cnn": cnn,
    "resnet": resnet,
    "vit": vit,
    "encoder": encoder,
}
"""By the name that the run-config key `student` has."""


def folded(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode without the BatchNorms that follow a convolution."""
    copied = copy.deepcopy(network).eval()
    for part in list(copied.modules()):
        if isinstance(part, nn.Sequential):
            for (name, one), (after, other) in itertools.pairwise(list(part.named_children())):
                if isinstance(one, nn.Conv2d) and isinstance(other, nn.BatchNorm2d):
                    setattr(part, name, fuse_conv_bn_eval(one, other))
                    setattr(part, after, nn.Identity())
    return copied


def with_folded(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network that computes what its `folded` form does with these weights.

    Its BatchNorms become the biases that folding made of them.
    """
    copied = copy.deepcopy(network).eval()
    for name, part in list(copied.named_modules()):
        if isinstance(part, nn.Sequential):
            for (first, one), (after, other) in itertools.pairwise(list(part.named_children())):
                if isinstance(one, nn.Conv2d) and isinstance(other, nn.BatchNorm2d):
                    prefix = f"{name}." if name else ""
                    _only_add(other, state[f"{prefix}{first}.bias"], f"{prefix}{after}")
    own = copied.state_dict()
    copied.load_state_dict(own | {name: state[name] for name in own if name in state})
    return copied


@torch.no_grad()
def _only_add(norm: nn.BatchNorm2d, bias: Tensor, name: str) -> None:
    """Let a BatchNorm in evaluation mode add `bias` and do nothing else."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"{name} keeps no running statistics")
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)


def shape_like(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the layers the widths of a pruned network's state, so that it can be loaded."""
    for name, layer in network.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or weight.shape == layer.weight.shape:
            continue
        if isinstance(layer, nn.Conv2d):
            depthwise = layer.groups > 1
            layer.out_channels = len(weight)
            layer.groups = len(weight) if depthwise else 1
            layer.in_channels = weight.shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = weight.shape
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.num_features = len(weight)
        for part in (*layer._parameters, *layer._buffers):
            if (value := state.get(f"{name}.{part}")) is not None:
                value = value.clone()
                setattr(layer, part, nn.Parameter(value) if part in layer._parameters else value)


def _convolution(
    before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = kernel // 2
    convolution = nn.Conv2d(
        before, after, kernel, stride=stride, padding=padding, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def _separable(before: int, after: int, *, stride: int) -> list[nn.Module]:
    """Each channel by itself, then all channels of each place."""
    return [
        _convolution(before, before, 3, stride=stride, groups=before),
        nn.ReLU(),
        _convolution(before, after, 1),
        nn.ReLU(),
    ]
