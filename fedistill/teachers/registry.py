"""Teachers by name."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from fedistill.data.wording import suggestion
from fedistill.errors import PolicyRefusal
from fedistill.teachers import estimators
from fedistill.teachers.estimators import EstimatorTeacher, imputed
from fedistill.teachers.mlp import MLP
from fedistill.teachers.teacher import Features, TeacherModel

GROUP = "fedistill.teachers"
"""Entry points of this group name factories of further estimators."""

TEACHERS: Mapping[str, Callable[[int], TeacherModel]] = {
    "logistic": lambda classes: EstimatorTeacher(estimators.logistic, classes, scaled=True),
    "boosting": lambda classes: EstimatorTeacher(estimators.boosting, classes),
    "mlp": MLP,
    "xgboost": lambda classes: EstimatorTeacher(estimators.xgboost, classes),
    "lightgbm": lambda classes: EstimatorTeacher(estimators.lightgbm, classes),
}
"""Our own, by name; each takes the number of classes. The first is the default."""

_OPTIONAL = {"xgboost": estimators.xgboost, "lightgbm": estimators.lightgbm}
_REHEARSED_ROWS = 50


def teacher_named(name: str, num_classes: int) -> TeacherModel:
    """An unfitted teacher of that name.

    Args:
        name: One of `TEACHERS`, an entry point of the group `fedistill.teachers`, or an import
            path `package.module:factory`; "" takes the first. A factory takes no argument and
            returns a new estimator with scikit-learn's `fit` and `predict_proba`. An import path
            runs code, so a site must have allowed the very name.
        num_classes: Classes of the task, at least 2.

    Raises:
        PolicyRefusal: There is none, its package is not installed, or it has no `predict_proba`.
    """
    name = name or next(iter(TEACHERS))
    if name in TEACHERS:
        _check_installed(name)
        return TEACHERS[name](num_classes)
    factory = _factory(name)
    _check_estimator(name, factory)
    return EstimatorTeacher(lambda: imputed(factory()), num_classes)


def rehearse(name: str, num_classes: int, features: Features) -> None:
    """Let a teacher learn made-up labels of public rows, so that it fails before it costs.

    At run time a teacher that fails answers uniform; here it says why.

    Args:
        name: As for `teacher_named`.
        num_classes: Classes of the task.
        features: (num_rows, num_features) of public rows, at least one.

    Raises:
        PolicyRefusal: As `teacher_named`, or it cannot learn or answer.
    """
    teacher = teacher_named(name, num_classes)
    if name in ("", "logistic", "boosting", "mlp"):
        return
    labels = np.arange(max(_REHEARSED_ROWS, 4 * num_classes)) % num_classes
    rows = np.resize(features, (len(labels), features.shape[1]))
    rows[0] = np.nan
    try:
        answer = np.asarray(teacher.fit(rows, labels).predict_proba(rows), dtype=np.float64)
    except Exception as error:
        raise PolicyRefusal(
            f"teacher={name!r} cannot learn public rows with missing values and made-up labels "
            f"({type(error).__name__}: {error}): choose one that can"
        ) from error
    if not (answer.min() >= 0 and np.allclose(answer.sum(axis=1), 1)):
        raise PolicyRefusal(
            f"teacher={name!r}: predict_proba must give probabilities that sum to 1 in each row: "
            "choose a classifier that does"
        )


def _check_installed(name: str) -> None:
    if name not in _OPTIONAL:
        return
    try:
        _OPTIONAL[name]()
    except ImportError as error:
        raise PolicyRefusal(
            f"teacher={name!r} needs a package that is not installed: "
            f"pip install 'fedistill[{name}]'"
        ) from error


def _factory(name: str) -> Callable[[], Any]:
    known = {found.name: found.value for found in entry_points(group=GROUP)}
    if name not in known and ":" not in name:
        raise PolicyRefusal(
            f"teacher={name!r} must be a teacher or an import path package.module:factory: "
            f"{suggestion(name, [*TEACHERS, *known])}"
        )
    point = EntryPoint(name=name, value=known.get(name, name), group=GROUP)
    try:
        factory: Callable[[], Any] = point.load()
    # An import runs code, which may raise anything.
    except Exception as error:
        raise PolicyRefusal(
            f"teacher={name!r} cannot be imported ({type(error).__name__}: {error}): write it as "
            "package.module:factory of a package that the site has installed"
        ) from error
    return factory


def _check_estimator(name: str, factory: Callable[[], Any]) -> None:
    try:
        estimator = factory()
    except Exception as error:
        raise PolicyRefusal(
            f"teacher={name!r} must make an estimator when called without arguments "
            f"({type(error).__name__}: {error}): name a function that does"
        ) from error
    missing = [method for method in ("fit", "predict_proba") if not hasattr(estimator, method)]
    if missing:
        raise PolicyRefusal(
            f"teacher={name!r} makes a {type(estimator).__name__} without {' and '.join(missing)}: "
            "choose an estimator that gives probabilities"
        )
