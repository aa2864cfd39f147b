"""Images turned, sheared, stretched, moved and bent at random, all of a batch in one pass.

Randomness is that of training. It is drawn on the CPU, so that equal seeds give equal images'
transforms whatever the device.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

_PLACES = 5


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Bounds of a random transform, each part uniform within them.

    Attributes:
        degrees: Of rotation, either way.
        scale: Log of the factor, either way, in each direction by itself.
        shear: Tangent of the angle, either way.
        shift: Share of the side, either way, in each direction.
        elastic: The same of each of 5 by 5 places by itself, with a smooth move between them; 0
            bends nothing (after Simard et al. 2003, "Best Practices for Convolutional Neural
            Networks Applied to Visual Document Analysis", section 2).
    """

    degrees: float
    scale: float
    shear: float
    shift: float
    elastic: float = 0.0


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
    if bounds.elastic > 0:
        grid = grid + _bending(images, bounds.elastic, generator)
    # Bilinear views would be smoother than the images that a network is asked about afterwards.
    return grid_sample(
        images, grid.to(images.dtype), mode="bicubic", padding_mode="border", align_corners=False
    )


def _bending(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """How far each pixel moves besides, (batch, side, side, 2) in units of the grid."""
    places = torch.rand(len(images), 2, _PLACES, _PLACES, generator=generator) * 2 - 1
    moves = (places * 2 * most).to(images.device)  # the grid is two units wide
    size = list(images.shape[2:])
    return interpolate(moves, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
