"""The contract that every mechanism keeps."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows, ProxySet
from fedistill.data.wording import suggestion
from fedistill.errors import PolicyRefusal
from fedistill.labels import LabelQuestion, LabelRelease, LinearResponse, SoftLabels
from fedistill.privacy.adjacency import Adjacency, Unit

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a release will do and cost, fixed before any private row is read.

    Attributes:
        question: What was asked.
        event: The cost, for `dp_accounting`; completely documents the noise.
        rows_at_least: The site's public lower bound on its rows.
    """

    question: LabelQuestion
    event: "DpEvent"
    rows_at_least: int


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A differentially private teacher: post-processing of its release, so it may label for free.

    `weights` has shape (num_features, num_classes).
    """

    weights: npt.NDArray[np.float64]


GROUP = "fedistill.mechanisms"
"""Entry points of this group name further mechanisms."""

OURS = {
    "dp-probe": "fedistill.mechanisms.dp_probe:DPProbe",
    "clipped": "fedistill.mechanisms.clipped:Clipped",
    "clipped-site": "fedistill.mechanisms.clipped:SiteClipped",
    "corrections": "fedistill.mechanisms.corrections:Corrections",
    "dp-ebm": "fedistill.mechanisms.dp_ebm:DPEBM",
    "dp-sgd": "fedistill.mechanisms.dp_sgd:DPSGD",
    "sharded": "fedistill.mechanisms.sharded:Sharded",
    "votes": "fedistill.mechanisms.votes:Votes",
}
"""Where our own mechanisms are; nobody can take their names."""


class Mechanism(Protocol):
    """Private rows and a proxy set to a release. No method takes a random generator."""

    name: str
    adjacency: Adjacency
    units: tuple[Unit, ...]
    """Whose presence it can hide at the planned cost; groups are those of `rows.units`."""
    parameters: tuple[str, ...]
    """Names of what a release states besides its codes; values of at least 1."""

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> Plan:
        """The release's cost, from public values alone; charged before `release` is called."""
        ...

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Answer the planned question. Total: a bad record contributes zero (PRIVACY rule 3)."""
        ...

    def label(self, teacher: Teacher, proxy: ProxySet, rows: ProxySet) -> SoftLabels:
        """The teacher's answers on other public rows; post-processing, costs nothing."""
        ...

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """How the release relates to what the site would say without noise and shrinkage."""
        ...


def has_float_noise(mechanism: Mechanism) -> bool:
    """Whether a mechanism makes its noise in floating point; one that does not say so does not.

    Such noise breaks the guarantee in the strict sense: see `dp_sgd`.
    """
    return bool(getattr(mechanism, "float_noise", False))


def mechanism_named(name: str) -> Mechanism:
    """The mechanism of that name: one of ours, or of an installed package's entry points.

    Another package adds one by an entry point of the group `fedistill.mechanisms` that names a
    class of this contract.

    Raises:
        PolicyRefusal: There is none, or it does not say whom it protects.
    """
    theirs = {found.name: found.value for found in entry_points(group=GROUP)}
    known = theirs | OURS
    if name not in known:
        raise PolicyRefusal(f"mechanism={name!r} must be a mechanism: {suggestion(name, known)}")
    made: Mechanism = EntryPoint(name=name, value=known[name], group=GROUP).load()()
    _check_units(name, getattr(made, "units", None))
    return made


def mechanism_names() -> tuple[str, ...]:
    """Names that `mechanism_named` knows, ours first; their packages may not be installed."""
    return tuple(dict.fromkeys([*OURS, *sorted(found.name for found in entry_points(group=GROUP))]))


def mechanisms_that_protect(unit: Unit) -> list[str]:
    """Names of our own mechanisms that can guarantee this unit."""
    return [name for name in OURS if unit in mechanism_named(name).units]


def _check_units(name: str, units: object) -> None:
    if not isinstance(units, tuple) or not units or any(type(unit) is not Unit for unit in units):
        raise PolicyRefusal(
            f"mechanism={name!r}: units={units!r} must be a tuple of fedistill.privacy.adjacency."
            "Unit: state in its class whom it protects, such as units = (Unit.RECORD,)"
        )
