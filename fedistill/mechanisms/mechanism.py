"""The contract that every mechanism keeps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows, ProxySet
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


class Mechanism(Protocol):
    """Private rows and a proxy set to a release. No method takes a random generator."""

    name: str
    adjacency: Adjacency
    unit: Unit
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


def mechanism_named(name: str) -> Mechanism:
    """The mechanism of that name.

    Raises:
        PolicyRefusal: There is none.
    """
    from fedistill.mechanisms.dp_probe import DPProbe

    mechanisms: dict[str, Mechanism] = {DPProbe.name: DPProbe()}
    if name not in mechanisms:
        raise PolicyRefusal(f"mechanism={name!r} must be one of {', '.join(mechanisms)}")
    return mechanisms[name]
