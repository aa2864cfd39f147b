"""What turns private rows into a differentially private `LabelRelease`."""

from fedistill.mechanisms.mechanism import (
    Mechanism,
    Plan,
    Teacher,
    has_float_noise,
    mechanism_named,
    mechanism_names,
    mechanisms_that_protect,
)

__all__ = [
    "Mechanism",
    "Plan",
    "Teacher",
    "has_float_noise",
    "mechanism_named",
    "mechanism_names",
    "mechanisms_that_protect",
]
