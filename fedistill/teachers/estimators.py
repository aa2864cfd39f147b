"""Teachers that are scikit-learn estimators, or look like one."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Self

import numpy as np

from fedistill.teachers.scaling import Scaling
from fedistill.teachers.teacher import (
    Features,
    Floats,
    Labels,
    smoothed_shares,
    without_infinities,
)

_FEWEST_ROWS = 4
"""With fewer rows, class shares are all that is answered."""


class EstimatorTeacher:
    """An estimator that answers for all classes, whatever rows it was given.

    Each `fit` makes a new estimator, so that no state of an earlier one is left.
    """

    def __init__(self, make: Callable[[], Any], num_classes: int, *, scaled: bool = False) -> None:
        self._make = make
        self._num_classes = num_classes
        self._scaled = scaled

    def fit(self, features: Features, labels: Labels) -> Self:
        """Learn from scratch; see `TeacherModel`."""
        values = without_infinities(features)
        self._shares = smoothed_shares(labels, self._num_classes)
        self._estimator: Any = None
        # Estimators want labels 0, 1, ... without gaps.
        self._present, codes = np.unique(labels, return_inverse=True)
        if len(self._present) < 2 or len(labels) < _FEWEST_ROWS:
            return self
        # Nothing can be learned of a column without a value, and many estimators refuse it.
        self._known = ~np.isnan(values).all(axis=0)
        with same_surroundings():
            if self._scaled:
                self._scaling = Scaling.fit(values)
            self._estimator = self._make().fit(self._prepared(values), codes)
        return self

    def predict_proba(self, features: Features) -> Floats:
        """Probabilities, (num_rows, num_classes); a class that no row had gets zero."""
        if self._estimator is None:
            return np.tile(self._shares, (len(features), 1))
        answer = np.zeros((len(features), self._num_classes))
        with same_surroundings():
            prepared = self._prepared(without_infinities(features))
            answer[:, self._present] = self._estimator.predict_proba(prepared)
        return answer

    def _prepared(self, values: Floats) -> Floats:
        if self._scaled:
            return self._scaling.transform(values)
        return np.where(self._known, values, 0.0)


def logistic() -> Any:
    """Logistic regression with a weak ridge: the mean over many shards evens out their noise."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=200)


def boosting() -> Any:
    """Gradient boosting of small trees that may split a few dozen rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=40,
        learning_rate=0.1,
        max_leaf_nodes=6,
        min_samples_leaf=5,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )


def xgboost() -> Any:
    """XGBoost with trees of the same size."""
    return import_module("xgboost").XGBClassifier(
        n_estimators=40, learning_rate=0.1, max_leaves=6, max_depth=4, random_state=0, n_jobs=1
    )


def lightgbm() -> Any:
    """LightGBM with trees of the same size."""
    return import_module("lightgbm").LGBMClassifier(
        n_estimators=40,
        learning_rate=0.1,
        num_leaves=6,
        min_child_samples=5,
        random_state=0,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )


def imputed(estimator: Any) -> Any:
    """The estimator behind an imputer of medians, if it is scikit-learn's and refuses NaN."""
    from sklearn.base import BaseEstimator
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.utils import get_tags

    if not isinstance(estimator, BaseEstimator) or get_tags(estimator).input_tags.allow_nan:
        return estimator
    return make_pipeline(SimpleImputer(strategy="median"), estimator)


@contextmanager
def same_surroundings() -> Iterator[None]:
    """Global random generators in one fixed state, restored afterwards; warnings are not shown.

    Otherwise the draws of one teacher, whose number depends on its rows, would move the next one.
    Privacy noise draws on the operating system and is not touched. Warnings may quote rows.
    """
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    try:
        random.seed(0)
        np.random.seed(0)
        if torch:
            torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch:
            torch.set_rng_state(states[2])
