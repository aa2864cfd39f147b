"""How the run config has the student learn."""

from fedistill.config import RunConfig
from fedistill.distill.training import Learning, check_recipe, fresh_student
from fedistill.federation.public import Public


def learning_of(config: RunConfig) -> Learning:
    """The keys about the student's training."""
    return Learning(
        student=config.student,
        augmentation=config.augmentation,
        label_propagation=config.label_propagation,
        self_training=config.self_training,
        epochs=config.student_epochs,
        recipe=config.recipe,
        public_teacher=config.public_teacher,
        track=config.track,
        processes=config.train_processes,
    )


def check_student(config: RunConfig, public: Public) -> None:
    """Refuse a student or a recipe that does not fit the columns, before any site is asked.

    Raises:
        ConfigError: See `make_student` and `check_recipe`.
    """
    learning = learning_of(config)
    if learning.recipe == "auto":
        fresh_student(public.proxy, len(public.classes), learning)
    else:
        check_recipe(public.proxy, len(public.classes), learning)
