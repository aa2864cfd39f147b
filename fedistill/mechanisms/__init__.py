"""What turns private rows into a differentially private `LabelRelease`."""

from fedistill.mechanisms.mechanism import Mechanism, Plan, Teacher, mechanism_named

__all__ = ["Mechanism", "Plan", "Teacher", "mechanism_named"]
