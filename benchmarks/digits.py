"""What `benchmarks.mnist` measures: the split, an encoder, the sites' answers, a student."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.data.encoder import Encoder
from fedistill.distill.cross_fitting import CrossFit, checked_labels, mixed
from fedistill.distill.image_trainer import ImageRecipe, distil_images, predict_images
from fedistill.distill.noise_aware import propagate_labels
from fedistill.distill.target import build_ensemble
from fedistill.features import proxy_basis
from fedistill.features.affine import MODERATE
from fedistill.features.images import image_shape
from fedistill.features.self_supervised import ImageEncoder, Recipe, pretrain, public_images
from fedistill.labels import EnsembleTarget, Floats, LabelQuestion
from fedistill.mechanisms.summed import nothing_opened, summable

DELTA = 1e-5
CLASSES = 10
NUM_SITES = 3
PUBLIC = 9_000
ROWS_AT_LEAST = 10_000
"""What each site declares of itself."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How a student learns: by `recipe`, and from labels that others checked unless None."""

    recipe: ImageRecipe
    crossing: CrossFit | None = None


_SHARP = ImageRecipe(target_power=4, learning_rate=1e-3, epochs=60, self_training=0)
_STILL = replace(_SHARP, unmoved=0.5)
_BENT = replace(_STILL, views=replace(MODERATE, elastic=0.04))

STUDENTS = {
    "plain": Learner(recipe=ImageRecipe()),
    "sharp": Learner(recipe=_SHARP),
    "still": Learner(recipe=_STILL),
    "crossed": Learner(recipe=_STILL, crossing=CrossFit()),
    "bent": Learner(recipe=_BENT, crossing=CrossFit()),
}
"""Ways to learn from the same answer."""

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
class Way:
    """How sites answer, whether their answer is spread over neighbours, and how a student learns.

    `student` names one of `STUDENTS`.
    """

    mechanism: str
    trust: str
    epsilon: float
    spread: bool
    student: str
    rounds: int = 1
    cells: int = 300
    partitions: int = 1


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


@dataclass(frozen=True, kw_only=True)
class Result:
    """Shares in [0, 1], and seconds.

    Attributes:
        accuracy: Of the student, on the images that measure.
        agreement: Public images on which the student says what the sites' answer says.
        answered: Public images on which the sites' answer is right.
        taught: The same of what the student learns from.
        public: The same of the student.
        crossed: Public images on which students that never saw its label say what the answer says;
            None where labels were not checked.
        says: The student's class of each public image, one digit after the other.
        answer_seconds: Until the answer was there.
        student_seconds: Of the student's training.
    """

    accuracy: float
    agreement: float
    answered: float
    taught: float
    public: float
    crossed: float | None
    says: str
    answer_seconds: float
    student_seconds: float


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


def measure(seed: int, way: Way, settings: Settings) -> Result:
    """Ask the sites one way, unless that was the latest, and train a student on their answer."""
    torch.set_num_threads(1)
    digits = read_digits(settings.file, settings.limit)
    encoder, proxy, _ = _embedded(seed, settings)
    begun = time.monotonic()
    target = _answer_once(replace(way, student=""), seed, settings)
    taught = _taught(way, target, proxy)
    answered = time.monotonic()
    student, images = _untrained(seed, encoder), public_images(digits.public)
    learner = STUDENTS[way.student]
    recipe = _recipe(way, settings)
    labels, crossed, device = torch.from_numpy(taught), None, settings.device
    if learner.crossing is not None:
        checked = _checked_once(replace(way, student=""), recipe, seed, settings)
        crossed = float(
            (checked.numpy().argmax(axis=1) == target.probabilities.argmax(axis=1)).mean()
        )
        labels = mixed(labels, checked, recipe, learner.crossing.share)
        recipe = replace(recipe, target_power=1.0)
    distil_images(student, images, labels, seed=seed, recipe=recipe, device=device)
    trained = time.monotonic()
    student.to(device)
    scored = torch.from_numpy(digits.scored[0]).reshape(-1, *images.shape[1:])
    says = predict_images(student, images, device=device).argmax(dim=1).numpy()
    said = target.probabilities.argmax(axis=1)
    right = predict_images(student, scored, device=device).argmax(dim=1).numpy() == digits.scored[1]
    return Result(
        accuracy=float(right.mean()),
        agreement=float((says == said).mean()),
        answered=float((said == digits.public_labels).mean()),
        taught=float((taught.argmax(axis=1) == digits.public_labels).mean()),
        public=float((says == digits.public_labels).mean()),
        crossed=crossed,
        says="".join(map(str, says)),
        answer_seconds=answered - begun,
        student_seconds=trained - answered,
    )


def _taught(way: Way, target: EnsembleTarget, proxy: ProxySet) -> Floats:
    """What students learn from, (num_public, CLASSES)."""
    labels = target.probabilities
    return propagate_labels(proxy_basis(proxy).values, labels) if way.spread else labels


def _recipe(way: Way, settings: Settings) -> ImageRecipe:
    recipe = STUDENTS[way.student].recipe
    return replace(recipe, epochs=settings.student_epochs or recipe.epochs)


def _untrained(seed: int, encoder: ImageEncoder) -> "Student":
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(encoder)


@lru_cache(maxsize=2)
def _checked_once(way: Way, recipe: ImageRecipe, seed: int, settings: Settings) -> Tensor:
    """Labels by students that never saw them, once for all that learn from these."""
    encoder, proxy, _ = _embedded(seed, settings)
    taught = _taught(way, _answer_once(way, seed, settings), proxy)
    return checked_labels(
        _untrained(seed, encoder),
        public_images(read_digits(settings.file, settings.limit).public),
        torch.from_numpy(taught),
        seed=seed,
        recipe=recipe,
        device=settings.device,
    )


@lru_cache(maxsize=1)
def _answer_once(way: Way, seed: int, settings: Settings) -> EnsembleTarget:
    """One answer for several students."""
    _, proxy, sites = _embedded(seed, settings)
    return answer(way, sites, proxy, settings.honest)


def answer(way: Way, sites: Sequence[LabelledRows], proxy: ProxySet, honest: int) -> EnsembleTarget:
    """The denoised target of all sites' summed answers."""
    question = LabelQuestion(
        mechanism=way.mechanism,
        epsilon=way.epsilon,
        delta=DELTA,
        num_classes=CLASSES,
        proxy_sha256=proxy.sha256,
        solver="moment",
        cells=way.cells,
        partitions=way.partitions,
        trust=way.trust,
        min_honest_sites=honest,
        rounds=way.rounds,
    )
    asked, state = summable(way.mechanism), nothing_opened(question, proxy)
    for number in range(1, way.rounds + 1):
        plan = asked.plan_sum(
            replace(question, round=number),
            proxy,
            rows_at_least=ROWS_AT_LEAST,
            num_sites=len(sites),
        )
        sent = [asked.noised_integers(site, proxy, plan, state.weights) for site in sites]
        total = np.sum(sent, axis=0)
        state = asked.open_sum(total, proxy, plan, num_sites=len(sites), before=state)
    release, response = asked.answer_sum(state, proxy, plan)
    return build_ensemble([release], [response], proxy_basis(proxy)).target


class Student(nn.Module):
    """The encoder's network and one layer more."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.last = nn.Linear(encoder.dimensions, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.last(self.encoder.represent(images))
        return logits


def given() -> object:
    """The encoder of rows that are embeddings already."""
    return lambda rows: rows


@lru_cache(maxsize=1)
def _embedded(
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
