"""MNIST on the split of `benchmarks.mnist_pate`, its encoders, and its embeddings."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.data.encoder import Encoder
from fedistill.features.images import image_shape
from fedistill.features.self_supervised import ImageEncoder, Recipe, pretrain

CLASSES = 10
NUM_SITES = 3
PUBLIC = 9_000

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The split. Images are rows of 784 pixels.

    Attributes:
        public: (9000, 784).
        public_labels: (9000,); nobody learns from them or chooses by them.
        sites: Images and labels of each site.
        scored: The same of the images that measure.
    """

    public: Rows
    public_labels: Labels
    sites: tuple[tuple[Rows, Labels], ...]
    scored: tuple[Rows, Labels]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all measurements share.

    Attributes:
        file: Of the digits.
        encoders: Folder of the encoders, one a seed.
        epochs: Of an encoder.
        student_epochs: Of a student; 0 for those of its recipe.
        honest: Sites whose noise is counted on.
        device: "cpu" or "cuda".
        limit: Images of each part.
        joined: Encoders side by side whose embeddings are one.
    """

    file: Path
    encoders: Path
    epochs: int
    student_epochs: int
    honest: int
    device: str
    limit: int
    joined: int = 1


@lru_cache(maxsize=1)
def read_digits(file: Path, limit: int) -> Digits:
    """The split; `limit` bounds the images of each part, for a try."""
    with np.load(file) as archive:
        part = {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    rows = {name: part[name].reshape(len(part[name]), -1).astype(np.float32) for name in part}
    labels = {name: part[name].astype(np.int64) for name in ("y_train", "y_test")}
    order = np.random.default_rng(0).permutation(len(rows["x_train"]))
    sites = tuple(
        (rows["x_train"][chosen[:limit]], labels["y_train"][chosen[:limit]])
        for chosen in np.array_split(order, NUM_SITES)
    )
    return Digits(
        public=rows["x_test"][:PUBLIC][:limit],
        public_labels=labels["y_test"][:PUBLIC][:limit],
        sites=sites,
        scored=(rows["x_test"][PUBLIC:], labels["y_test"][PUBLIC:]),
    )


def make_encoder(seed: int, settings: Settings) -> float:
    """Train the seed's encoder, or go on with it, unless its file is there; the seconds it took."""
    torch.set_num_threads(1)
    path = _encoder_file(seed, settings)
    begun = time.monotonic()
    if not path.exists():
        public = read_digits(settings.file, settings.limit).public
        recipe = Recipe(epochs=settings.epochs)
        encoder = pretrain(public, seed=seed, recipe=recipe, device=settings.device)
        torch.save(encoder.state_dict(), path)
    return time.monotonic() - begun


def given() -> object:
    """The encoder of rows that are embeddings already."""
    return lambda rows: rows


@lru_cache(maxsize=1)
def embedded(
    seed: int, settings: Settings
) -> tuple[ImageEncoder, ProxySet, tuple[LabelledRows, ...]]:
    """The seed's encoder, and public images and sites as it sees them."""
    digits = read_digits(settings.file, settings.limit)
    encoders = _load_encoders(seed, settings)
    names = tuple(f"embedding_{number}" for number in range(_dimensions(encoders)))
    proxy = ProxySet(
        schema=numbers(names),
        rows=_embeddings(encoders, digits.public, settings.device),
        encoder=Encoder(import_path="benchmarks.digits:given"),
    )
    sites = tuple(
        LabelledRows(
            columns=names,
            rows=_embeddings(encoders, rows, settings.device),
            labels=labels,
            num_classes=CLASSES,
        )
        for rows, labels in digits.sites
    )
    return encoders[0], proxy, sites


def embedded_digits(seed: int, settings: Settings) -> tuple[Rows, list[Rows], Rows]:
    """Embeddings of public images, of each site's and of those that measure."""
    encoders, digits = _load_encoders(seed, settings), read_digits(settings.file, settings.limit)
    public, *sites, scored = (
        _embeddings(encoders, rows, settings.device)
        for rows in (digits.public, *(rows for rows, _ in digits.sites), digits.scored[0])
    )
    return public, sites, scored


def _load_encoders(seed: int, settings: Settings) -> list[ImageEncoder]:
    """The seed's own encoder first, then those of the next seeds, in a circle."""
    count = len(list(settings.encoders.glob("encoder-*.pt")))
    shape = image_shape(read_digits(settings.file, settings.limit).public.shape[1])
    encoders = []
    for number in range(seed, seed + settings.joined):
        state = torch.load(_encoder_file(number % count, settings), weights_only=True)
        encoder = ImageEncoder(shape, state["mean"], state["std"])
        encoder.load_state_dict(state)
        encoders.append(encoder.eval())
    return encoders


def _dimensions(encoders: Sequence[ImageEncoder]) -> int:
    return sum(encoder.dimensions for encoder in encoders)


@torch.inference_mode()
def _embeddings(encoders: Sequence[ImageEncoder], rows: Rows, device: str) -> Rows:
    """(num_rows, dimensions of all encoders), of unit norm, in batches."""
    images = torch.from_numpy(rows).reshape(len(rows), 1, encoders[0].shape.side, -1)
    parts = []
    for encoder in encoders:
        encoder.to(device)
        batches = [encoder(batch.to(device)).cpu() for batch in torch.split(images, 4096)]
        encoder.cpu()
        parts.append(torch.cat(batches))
    found: Rows = (torch.cat(parts, dim=1) / len(encoders) ** 0.5).numpy()
    return found


def _encoder_file(seed: int, settings: Settings) -> Path:
    return settings.encoders / f"encoder-{seed}.pt"
