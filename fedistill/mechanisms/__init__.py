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
from fedistill.mechanisms.summed import (
    OpenedSum,
    Summable,
    SumPlan,
    is_summed,
    nothing_opened,
    summable,
)

__all__ = [
    "Mechanism",
    "OpenedSum",
    "Plan",
    "SumPlan",
    "Summable",
    "Teacher",
    "has_float_noise",
    "is_summed",
    "mechanism_named",
    "mechanism_names",
    "mechanisms_that_protect",
    "nothing_opened",
    "summable",
]
