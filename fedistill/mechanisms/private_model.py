"""What `dp-sgd` and `dp-ebm` share: a model that a library trains privately, and a noised count.

Adjacency: add or remove one record. Unit: record.

Release: how many records have a possible label, with noise. The model's own noised sums are the
mechanisms' matter; what leaves is post-processing of both.

Sensitivity: the count moves by one when one record comes or goes.

Output law: discrete Gaussian of scale s, exact integers, (1 / (2 s^2))-zCDP (Canonne, Kamath and
Steinke 2020, "The Discrete Gaussian for Differential Privacy", Theorem 4). The count is released
because training needs to know how many records there are, and their number is private under this
adjacency (PRIVACY rule 2).
"""

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from dp_accounting import DpEvent, ZCDpEvent

from fedistill.data import LabelledRows
from fedistill.errors import PolicyRefusal
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for

COUNT_SHARE = 0.01
"""Share of rho that pays for the noised record count."""


class PrivateModel(LinearMechanism):
    """Base of mechanisms whose noise a library makes; leaves the methods of the contract to them.

    Their noise is in floating point: see the module `dp_sgd`.
    """

    units: tuple[Unit, ...] = (Unit.RECORD,)
    float_noise = True
    parameters: tuple[str, ...] = ("noised-count",)


def fitting_rows(rows: LabelledRows, num_classes: int) -> npt.NDArray[np.bool_]:
    """Which records (num_rows,) have a possible label; others count as nothing (PRIVACY rule 3)."""
    fitting: npt.NDArray[np.bool_] = (rows.labels >= 0) & (rows.labels < num_classes)
    return fitting


def count_scale_for(rho: float) -> float:
    """Scale of the noise in the count, where the whole release may cost `rho`."""
    return scale_for(1, COUNT_SHARE * rho)


def count_event(scale: float) -> DpEvent:
    """What the noised count costs."""
    return ZCDpEvent(rho=0.5 / scale**2)


def noised_count(fitting: npt.NDArray[np.bool_], scale: float) -> int:
    """The number of fitting records with noise; may be negative."""
    return int(add_noise(np.array([fitting.sum()]), scale)[0])


def require_package(package: str, mechanism: str) -> None:
    """Refuse a mechanism whose library is missing, before anything is charged.

    Raises:
        PolicyRefusal: It is not installed; names the extra that brings it.
    """
    if find_spec(package) is None:
        raise PolicyRefusal(
            f"mechanism={mechanism!r} needs a package that is not installed: "
            f"pip install 'fedistill[{mechanism}]'"
        )
