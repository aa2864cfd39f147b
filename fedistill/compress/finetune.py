"""Fine-tuning changed students against the one that they came from."""

from typing import Protocol

from fedistill.compress.prune import examples_of
from fedistill.compress.prune_network import EMA_DECAY, inputs_of
from fedistill.distill.encoding import Rows
from fedistill.distill.image_trainer import (
    ImageRecipe,
    distil_images,
    enough_epochs,
    predict_images,
)
from fedistill.distill.network_students import NetworkStudent
from fedistill.distill.progress import Progress
from fedistill.distill.students import Student, TabularStudent
from fedistill.distill.trainer import Recipe, optimise


class Lessons(Protocol):
    """What a teacher says of proxy rows and of copies of them, to be learned by others."""

    def __call__(
        self,
        changed: Student,
        *,
        steps: int,
        seed: int,
        learning_rate: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Fit `changed.body` in place.

        Args:
            changed: Its body takes what its own encoding gives; networks share the teacher's.
            steps: Of the optimizer, at least.
            seed: Of the batches.
            learning_rate: Peak; None for that of training.
            progress: Called with steps, or epochs of networks, done and in all.
        """


def lessons_of(teacher: Student, proxy_rows: Rows, *, seed: int) -> Lessons:
    """The teacher's answers, computed once.

    Args:
        teacher: Left as it was.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        seed: Of the copies.
    """
    if isinstance(teacher, TabularStudent):
        return _lessons_on_rows(teacher, proxy_rows, seed)
    if isinstance(teacher, NetworkStudent):
        return _lessons_on_images(teacher, proxy_rows, seed)
    raise TypeError(f"{type(teacher).__name__} is no student that teaches")


def _lessons_on_rows(teacher: TabularStudent, proxy_rows: Rows, of_copies: int) -> Lessons:
    examples = examples_of(teacher, proxy_rows, of_copies)

    def learn(
        changed: Student,
        *,
        steps: int,
        seed: int,
        learning_rate: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        recipe = Recipe() if learning_rate is None else Recipe(learning_rate=learning_rate)
        optimise(changed, examples, recipe, num_steps=steps, seed=seed, progress=progress)

    return learn


def _lessons_on_images(teacher: NetworkStudent, proxy_rows: Rows, of_copies: int) -> Lessons:
    inputs = inputs_of(teacher, proxy_rows, of_copies)
    answers = predict_images(teacher.body, inputs)

    def learn(
        changed: Student,
        *,
        steps: int,
        seed: int,
        learning_rate: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        recipe = ImageRecipe(
            epochs=enough_epochs(len(inputs), epochs=1, steps=steps),
            views=None,
            self_training=0.0,
            ema_decay=EMA_DECAY,
            learning_rate=ImageRecipe.learning_rate if learning_rate is None else learning_rate,
        )
        distil_images(changed.body, inputs, answers, seed=seed, recipe=recipe, progress=progress)

    return learn
