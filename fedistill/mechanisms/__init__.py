"""What turns private rows into a differentially private `LabelRelease`."""

from fedistill.mechanisms.mechanism import (
    Mechanism,
    Plan,
    Teacher,
    mechanism_named,
    mechanisms_that_protect,
)

__all__ = ["Mechanism", "Plan", "Teacher", "mechanism_named", "mechanisms_that_protect"]
