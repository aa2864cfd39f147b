"""What learns from private rows: ordinary, non-private models. A mechanism makes them private."""

from fedistill.teachers.registry import TEACHERS, rehearse, teacher_named
from fedistill.teachers.teacher import TeacherModel, TeachesMany

__all__ = ["TEACHERS", "TeacherModel", "TeachesMany", "rehearse", "teacher_named"]
