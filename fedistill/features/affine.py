"""Images turned, sheared, stretched and moved at random, all of a batch in one pass.

Randomness is that of training. It is drawn on the CPU, so that equal seeds give equal images'
transforms whatever the device.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Bounds of a random affine transform, each part uniform within them.

    Attributes:
        degrees: Of rotation, either way.
        scale: Log of the factor, either way, in each direction by itself.
        shear: Tangent of the angle, either way.
        shift: Share of the side, either way, in each direction.
    """

    degrees: float
    scale: float
    shear: float
    shift: float


STRONG = Affine(degrees=25.0, scale=0.3, shear=0.35, shift=0.12)
"""For contrastive learning: what an image shows survives it, and little else."""

MODERATE = Affine(degrees=10.0, scale=0.12, shear=0.15, shift=0.07)
"""For students: hardly an image takes on another class."""


def random_affine(images: Tensor, bounds: Affine, generator: torch.Generator) -> Tensor:
    """Each image under a transform of its own; what comes in from outside repeats the border.

    Args:
        images: (batch, channels, side, side) floating point, on any device.
        bounds: Of the transforms.
        generator: On the CPU.
    """
    draws = torch.rand(6, len(images), generator=generator) * 2 - 1
    angle = draws[0] * math.radians(bounds.degrees)
    shear = draws[1] * bounds.shear
    wide, high = (draws[2:4] * bounds.scale).exp()
    right, down = draws[4:6] * 2 * bounds.shift  # the grid is two units wide
    cosine, sine = angle.cos(), angle.sin()
    first = torch.stack([wide * cosine, wide * (shear * cosine - sine), right], dim=1)
    second = torch.stack([high * sine, high * (shear * sine + cosine), down], dim=1)
    maps = torch.stack([first, second], dim=1).to(images.device)
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
