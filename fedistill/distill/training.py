"""Which training a student gets: that of tables, that of images, or a recipe's."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fedistill.data import ProxySet
from fedistill.distill.cross_fitting import FEWEST_IMAGES, CrossFit, distil_cross_fitted
from fedistill.distill.engine import train_by_recipe
from fedistill.distill.guide import Guide, find_guide
from fedistill.distill.image_trainer import ImageRecipe, distil_images, enough_epochs
from fedistill.distill.material import make_material
from fedistill.distill.network_students import make_student
from fedistill.distill.networks import NETWORKS
from fedistill.distill.noise_aware import propagate_labels
from fedistill.distill.progress import Progress
from fedistill.distill.public_teacher import public_teacher
from fedistill.distill.recipes import RecipePlan, load_recipe
from fedistill.distill.session import Session, check_installed
from fedistill.distill.students import Student
from fedistill.distill.target import Ensemble
from fedistill.distill.trainer import train_student
from fedistill.distill.training_state import Checkpoints
from fedistill.errors import ConfigError
from fedistill.features.affine import MODERATE

STEPS = 1500
"""Few proxy images are seen more often than `ImageRecipe.epochs` times, for at least so many."""

TARGET_POWER = 4.0
"""A denoised target is shrunk; students that learned it sharpened agreed with it most."""

FINE_TUNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a student learns, as the run config says.

    Attributes:
        student: A name that `make_student` knows.
        augmentation: "auto", "affine" or "none".
        label_propagation: Whether the target of images is spread over images that lie close.
        folds: Parts of the images, each labelled by students that learned from the others; 0: none.
        self_training: Share of the targets of images that each step of it replaces.
        epochs: Passes over images; 0 for what suits.
        recipe: "auto" for the training of tables or images, else what `load_recipe` knows.
        public_teacher: What `public_teacher` knows; "" for none.
        track: Where a recipe's losses go: "none", "tensorboard" or "mlflow".
        processes: That train by a recipe; above 1 they are started for it.
    """

    student: str = "mlp"
    augmentation: str = "auto"
    label_propagation: bool = False
    folds: int = 3
    self_training: float = 0.0
    epochs: int = 0
    recipe: str = "auto"
    public_teacher: str = ""
    track: str = "none"
    processes: int = 1

    @property
    def of_images(self) -> bool:
        """Whether rows are seen as images."""
        return self.student in NETWORKS or (self.student != "mlp" and self.augmentation == "affine")


def fresh_student(proxy: ProxySet, num_classes: int, learning: Learning) -> Student:
    """An untrained student.

    Raises:
        ConfigError: See `make_student`.
    """
    return make_student(learning.student, proxy, num_classes, as_images=learning.of_images)


def distil(
    proxy: ProxySet,
    ensemble: Ensemble,
    learning: Learning,
    *,
    seed: int,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    logs: Path | None = None,
) -> Student:
    """The ensemble as a student.

    Args:
        proxy: What it learns from.
        ensemble: Labels any public row.
        learning: How.
        seed: Of initial weights, order and augmentation.
        progress: Called with steps, or epochs of images, done and in all.
        checkpoints: Where a recipe's training is kept from epoch to epoch; None for nowhere.
        logs: Where it is tracked.

    Raises:
        ConfigError: See `make_student` and `check_recipe`.
    """
    if learning.recipe != "auto":
        session = Session(
            seed=seed,
            checkpoints=checkpoints,
            views=MODERATE if learning.of_images and learning.augmentation != "none" else None,
            track=learning.track,
            logs=logs,
            progress=progress,
        )
        return _by_recipe(proxy, ensemble, learning, session)
    target = ensemble.target
    if not learning.of_images:
        return train_student(
            proxy,
            target,
            relabel=None if learning.augmentation == "none" else ensemble.label,
            student=learning.student,
            seed=seed,
            progress=progress,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = fresh_student(proxy, target.log_odds.shape[1] + 1, learning)
    labels = target.probabilities
    if learning.label_propagation:
        labels = propagate_labels(ensemble.basis.values, labels)
    recipe = ImageRecipe(
        epochs=learning.epochs
        or enough_epochs(len(proxy.rows), epochs=ImageRecipe.epochs, steps=STEPS),
        self_training=learning.self_training,
        views=None if learning.augmentation == "none" else MODERATE,
        target_power=TARGET_POWER,
        learning_rate=FINE_TUNING_RATE
        if learning.student == "encoder"
        else ImageRecipe.learning_rate,
    )
    with torch.no_grad():
        images = student.encoding(torch.tensor(proxy.rows))
    targets = torch.from_numpy(labels)
    if learning.folds and len(images) >= learning.folds * FEWEST_IMAGES:
        distil_cross_fitted(
            student.body,
            images,
            targets,
            seed=seed,
            recipe=recipe,
            crossing=CrossFit(folds=learning.folds),
            progress=progress,
        )
    else:
        distil_images(student.body, images, targets, seed=seed, recipe=recipe, progress=progress)
    return student.eval()


def check_recipe(
    proxy: ProxySet, num_classes: int, learning: Learning
) -> tuple[RecipePlan, Student, Guide]:
    """The recipe, an untrained student and what the recipe compares it with.

    Raises:
        ConfigError: The recipe or the public teacher cannot be had, they or the student do not go
            together, or a package is missing.
    """
    check_installed(learning.track)
    plan = load_recipe(learning.recipe)
    student = fresh_student(proxy, num_classes, learning)
    name = learning.public_teacher
    teacher = public_teacher(name, proxy, num_classes) if name else None
    try:
        if any(stage.cutmix for stage in plan.stages) and not learning.of_images:
            raise ConfigError(
                f"cutmix patches images, and student={learning.student!r} learns rows of a table: "
                "use mixup"
            )
        if plan.jitter and learning.of_images:
            raise ConfigError(
                f"jitter={plan.jitter:g} moves amounts of a table, and student="
                f"{learning.student!r} learns images: leave it out"
            )
        return plan, student, find_guide(plan, student, teacher, proxy)
    except ConfigError as error:
        raise ConfigError(f"recipe={learning.recipe!r}: {error}") from error


def _by_recipe(
    proxy: ProxySet, ensemble: Ensemble, learning: Learning, session: Session
) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(session.seed)
        plan, student, guide = check_recipe(proxy, ensemble.target.log_odds.shape[1] + 1, learning)
        material = make_material(
            proxy,
            ensemble,
            plan,
            copies=not learning.of_images and learning.augmentation != "none",
            seed=session.seed,
        )
        if learning.processes == 1:
            train_by_recipe(student, material, plan, guide, session)
            return student
        from fedistill.distill.launch import train_in_processes  # which needs this module

        checkpoints = session.checkpoints
        with TemporaryDirectory(prefix="fedistill-train-") as scratch:
            folder = checkpoints.folder / "job" if checkpoints else Path(scratch)
            train_in_processes(student, proxy, material, learning, session, folder=folder)
    return student
