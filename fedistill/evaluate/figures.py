"""What every part of a summary is made of: figures that may be undefined, and their models."""

import math
import operator
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


Figure = Annotated[float | None, BeforeValidator(_finite)]
"""A number that may be undefined: what is infinite or not a number becomes None."""

Count = Annotated[int, BeforeValidator(operator.index)]
"""A whole number, NumPy's included."""


class Part(BaseModel):
    """A part of a summary: frozen, and strict about its keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", from_attributes=True, allow_inf_nan=False
    )
