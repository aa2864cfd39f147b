"""How the run config has the student learn, and how it is compressed."""

from fedistill.compress.export import check_exportable
from fedistill.compress.settings import Bounds, Settings, preset
from fedistill.config import RunConfig
from fedistill.config_rules import STUDENTS
from fedistill.distill.training import Learning, check_recipe, fresh_student
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
        recipe=config.recipe,
        public_teacher=config.public_teacher,
        track=config.track,
        processes=config.train_processes,
    )


def check_student(config: RunConfig, public: Public) -> None:
    """Refuse a student or a recipe that does not fit the columns, before any site is asked.

    Raises:
        ConfigError: See `make_student`, `check_recipe` and `check_exportable`.
    """
    learning = learning_of(config)
    if learning.recipe == "auto":
        student = fresh_student(public.proxy, len(public.classes), learning)
    else:
        _, student, _ = check_recipe(public.proxy, len(public.classes), learning)
    if config.student not in STUDENTS:
        check_exportable(student)


def compression_of(config: RunConfig) -> Settings:
    """The keys about the student's compression."""
    settings = Settings(
        prune_ratio=config.prune_ratio,
        prune_by=config.prune_by,
        quantize=config.quantize,
        float_ends=config.float_ends,
        target_cpu=config.target_cpu,
        bounds=Bounds(max_latency_ms=config.max_latency_ms, max_bytes=config.max_bytes),
    )
    return preset(config.compression, settings)
