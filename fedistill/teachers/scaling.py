"""Columns made alike for models that compare them: fitted on a teacher's own rows."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fedistill.teachers.teacher import Floats

_BOUND = 4.0


@dataclass(frozen=True)
class Scaling:
    """Columns centred at their median, in interquartile ranges, their tails drawn in.

    Total: a missing value becomes 0, the median; every other lies within +-4.
    """

    scaler: Any

    @classmethod
    def fit(cls, values: Floats) -> Self:
        """Learn median and range of each column, (num_rows, num_columns), NaN for missing."""
        from sklearn.preprocessing import RobustScaler

        return cls(RobustScaler().fit(values if len(values) else np.zeros((1, values.shape[1]))))

    def transform(self, values: Floats) -> Floats:
        """Scaled columns, finite, of the same shape."""
        if not len(values):
            return values
        scaled = np.arcsinh(self.scaler.transform(values))
        finite: Floats = np.nan_to_num(np.clip(scaled, -_BOUND, _BOUND), nan=0.0)
        return finite
