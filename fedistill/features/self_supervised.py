"""An encoder of images from public images alone, without labels: contrastive pre-training.

SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations",
section 2): two random views of each image shall lie close, and far from the views of all others.
The views are affine, the network has five convolutions, and what ships is the representation
before the projection, of unit norm.

Public rows go in and nothing else, so the encoder is public and costs no privacy (PRIVACY rule 6).
On a CPU equal rows, settings, seed and number of threads give equal weights, also when training was
stopped after any epoch and resumed from its checkpoint: each epoch has a random generator of its
own. On a GPU products run in bfloat16 and equal weights are not promised.
"""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from fedistill.errors import ConfigError, DataError
from fedistill.features.affine import STRONG, Affine, random_affine
from fedistill.features.batch_norm import settle
from fedistill.features.images import ImageShape, image_shape

Rows = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

ENCODER_WIDTHS = (32, 64, 128, 256, 256)
ENCODER_STRIDES = (1, 2, 1, 2, 1)
"""Of the five convolutions."""

FEWEST_IMAGES = 64
"""Contrast needs others; a handful of images teaches to tell these apart and nothing else."""

_FORMAT = 1
_PROJECTED = 128
_WARM_UP = 0.1
_SMALLEST_STD = 1e-6


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of pre-training.

    Attributes:
        epochs: Passes over the images, at least 1.
        batch: Images a step, at least 2; all of them where there are fewer.
        temperature: Of the loss: the smaller, the more the nearest others count.
        learning_rate: Its peak: it rises over a tenth of the steps, then falls as a cosine.
        weight_decay: Of AdamW.
        views: Bounds of the transforms.
        narrower: The network has so many times fewer channels everywhere: 1, 2, 4 or 8.
    """

    epochs: int = 200
    batch: int = 512
    temperature: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    views: Affine = STRONG
    narrower: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"epochs={self.epochs} must be at least 1: raise it")
        if self.batch < 2:
            raise ConfigError(f"batch={self.batch} must be at least 2: raise it")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature} must be above 0: raise it")
        if self.narrower not in (1, 2, 4, 8):
            raise ConfigError(f"narrower={self.narrower} must be 1, 2, 4 or 8: choose one of these")


class ImageEncoder(nn.Module):
    """Five convolutions and the mean over all places: raw rows or images to unit vectors.

    Pixels are centred and scaled by the public images' mean and deviation of each channel first.
    An embedding has as many numbers as the last convolution channels, 256 unless it is narrower.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: ImageShape, mean: Tensor, std: Tensor, *, narrower: int = 1) -> None:
        super().__init__()
        widths = [width // narrower for width in ENCODER_WIDTHS]
        self.shape, self.dimensions = shape, widths[-1]
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", std.reshape(1, -1, 1, 1))
        layers: list[nn.Module] = []
        for before, after, stride in zip(
            [shape.channels, *widths[:-1]], widths, ENCODER_STRIDES, strict=True
        ):
            layers += _convolution(before, after, stride=stride)
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def represent(self, images: Tensor) -> Tensor:
        """Images (batch, channels, side, side) to (batch, dimensions), of no certain norm."""
        represented: Tensor = self.body((images - self.mean) / self.std)
        return represented

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, side, side) to embeddings (batch, dimensions) of unit norm."""
        return normalize(self.represent(images), dim=1)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of telling an image's other view among the views of all, a scalar.

    Chen et al. 2020, equation 1 and algorithm 1, with cosine similarity.

    Args:
        first: (batch, dim), one view of each image; batch at least 2.
        second: (batch, dim), another view of the same images in the same order.
        temperature: Above 0.
    """
    batch = len(first)
    views = normalize(torch.cat([first, second]).float(), dim=1)
    likeness = views @ views.T / temperature
    itself = torch.eye(2 * batch, dtype=torch.bool, device=likeness.device)
    other = torch.arange(2 * batch, device=likeness.device).roll(batch)
    return cross_entropy(likeness.masked_fill(itself, -math.inf), other)


def pretrain(
    rows: Rows,
    *,
    seed: int,
    recipe: Recipe = Recipe(),
    device: str = "cpu",
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> ImageEncoder:
    """Train an encoder of square images on public rows.

    Args:
        rows: (num_rows, num_columns) pixels of any range, public.
        seed: Of initial weights, order and views.
        recipe: Settings.
        device: "cpu" or "cuda"; the encoder comes back on the CPU.
        checkpoint: Written after each epoch, whole or not at all.
        resume: Go on from `checkpoint`, which the same rows, seed and recipe must have made.
        progress: Called with epochs done and epochs in all.

    Raises:
        DataError: The rows are no square images, miss a pixel, are too few or all the same; or the
            checkpoint cannot be read or is of another training.
    """
    images = public_images(rows)
    state = _begin(images, seed, recipe, device)
    made_of = _identity(rows, seed, recipe)
    if resume and checkpoint is not None:
        state.load(checkpoint, made_of)
    images = images.to(device)
    # The layout in which a GPU's tensor cores are fed without copies.
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    state.network.to(memory_format=layout)  # type: ignore[call-overload]
    batch = min(recipe.batch, len(images))
    steps = len(images) // batch

    for epoch in range(state.epochs, recipe.epochs):
        generator = torch.Generator().manual_seed(_seed_of(seed, epoch))
        order = torch.randperm(len(images), generator=generator).to(device)
        for step in range(steps):
            chosen = images[order[step * batch : (step + 1) * batch]]
            views = [random_affine(chosen, recipe.views, generator) for _ in range(2)]
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                # In one pass, so that BatchNorm tells nothing of which view is which.
                first, second = state.network(torch.cat(views)).chunk(2)
            loss = nt_xent(first, second, recipe.temperature)
            for group in state.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _rise_and_fall(
                    (epoch * steps + step) / (recipe.epochs * steps)
                )
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
        state.epochs = epoch + 1
        if checkpoint is not None:
            state.save(checkpoint, made_of)
        if progress is not None:
            progress(epoch + 1, recipe.epochs)
    settle(state.encoder, images)
    encoder: ImageEncoder = state.encoder.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return encoder.eval()


def public_images(rows: Rows) -> Tensor:
    """Rows as images (num_rows, channels, side, side) float32.

    Raises:
        DataError: They are no square images, miss a pixel, are too few, or all the same.
    """
    shape = image_shape(rows.shape[1])
    if len(rows) < FEWEST_IMAGES:
        raise DataError(
            f"images={len(rows)} must be at least {FEWEST_IMAGES} to learn from: bring more"
        )
    if not np.isfinite(rows).all():
        number = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise DataError(f"image {number} must have all its pixels: fill them, or leave it out")
    if (rows == rows[0]).all():
        raise DataError(f"images={len(rows)} must not be all the same: bring images that differ")
    return torch.tensor(rows).reshape(-1, shape.channels, shape.side, shape.side)


@dataclass
class _Training:
    """What an epoch changes."""

    encoder: ImageEncoder
    network: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int = 0

    def save(self, path: Path, made_of: str) -> None:
        beside = path.with_name(path.name + ".part")
        content = {
            "format": _FORMAT,
            "made_of": made_of,
            "epochs": self.epochs,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(content, beside)
        os.replace(beside, path)

    def load(self, path: Path, made_of: str) -> None:
        try:
            content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise DataError(
                f"checkpoint {path} cannot be read ({type(error).__name__}): begin anew without "
                "--resume"
            ) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise DataError(f"checkpoint {path} is none of this version: begin without --resume")
        if content["made_of"] != made_of:
            raise DataError(
                f"checkpoint {path} must be of the same images, seed and settings: give those it "
                "was begun with, or begin anew without --resume"
            )
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.epochs = int(content["epochs"])


def _begin(images: Tensor, seed: int, recipe: Recipe, device: str) -> _Training:
    places = (0, 2, 3)
    std = images.std(dim=places).clamp_min(_SMALLEST_STD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = ImageShape(channels=images.shape[1], side=images.shape[2])
        encoder = ImageEncoder(shape, images.mean(dim=places), std, narrower=recipe.narrower)
        width = encoder.dimensions
        head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED))
    encoder.to(device), head.to(device)
    network = _Projected(encoder, head)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    return _Training(encoder, network, optimizer)


class _Projected(nn.Module):
    """The network that is trained; its head is left behind."""

    def __init__(self, encoder: ImageEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.head(self.encoder.represent(images))
        return projected


def _convolution(before: int, after: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


def _rise_and_fall(progress: float) -> float:
    """Share of the peak learning rate when so much of the training is done."""
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def _seed_of(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def _identity(rows: Rows, seed: int, recipe: Recipe) -> str:
    """Digest of what decides the weights."""
    settings = repr((rows.shape, seed, asdict(recipe))).encode()
    return hashlib.sha256(settings + np.ascontiguousarray(rows).tobytes()).hexdigest()
