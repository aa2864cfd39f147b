"""Students of `benchmarks.mnist_pate` and what is measured of them."""

import copy
import time
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from benchmarks.digits import CLASSES, Settings, embedded, read_digits
from benchmarks.digits_answers import Way, answer
from fedistill.data import ProxySet
from fedistill.distill.cross_fitting import CrossFit, checked_labels, mixed
from fedistill.distill.image_trainer import ImageRecipe, distil_images, predict_images
from fedistill.distill.noise_aware import propagate_labels
from fedistill.features import proxy_basis
from fedistill.features.affine import MODERATE
from fedistill.features.self_supervised import ImageEncoder, public_images
from fedistill.labels import EnsembleTarget, Floats


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


def measure(seed: int, way: Way, settings: Settings) -> Result:
    """Ask the sites one way, unless that was the latest, and train a student on their answer."""
    torch.set_num_threads(1)
    digits = read_digits(settings.file, settings.limit)
    encoder, proxy, _ = embedded(seed, settings)
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
    encoder, proxy, _ = embedded(seed, settings)
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
    _, proxy, sites = embedded(seed, settings)
    return answer(way, sites, proxy, settings.honest)


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
