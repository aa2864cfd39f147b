"""How the run config has the student learn."""

from fedistill.config import RunConfig
from fedistill.distill.training import Learning, fresh_student
from fedistill.federation.public import Public


def learning_of(config: RunConfig) -> Learning:
    """The keys about the student's training."""
    return Learning(
        student=config.student,
        augmentation=config.augmentation,
        label_propagation=config.label_propagation,
        self_training=config.self_training,
        folds=config.cross_fit_folds,
        epochs=config.student_epochs,
    )


def check_student(config: RunConfig, public: Public) -> None:
    """Refuse a student that does not fit the columns, before any site is asked.

    Raises:
        ConfigError: See `make_student`.
    """
    fresh_student(public.proxy, len(public.classes), learning_of(config))
