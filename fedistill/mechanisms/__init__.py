"""What turns private rows into a differentially private `LabelRelease`."""

from fedistill.mechanisms.mechanism import (
    Mechanism,
    Plan,
    Teacher,
    mechanism_named,
    mechanism_names,
)

__all__ = ["Mechanism", "Plan", "Teacher", "mechanism_named", "mechanism_names"]
