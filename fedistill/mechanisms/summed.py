"""Mechanisms whose noised integers are themselves what is summed over sites (PRIVACY rule 18).

Then nothing but the sum need be seen, and sites may share the noise (`trust = "secagg"`): each adds
so little that only the noise of `min_honest_sites` of them together gives the guarantee. A
mechanism that noises something else and sends what follows from it cannot: the average of such
answers would have no guarantee.

    site     plan_sum, then noised_integers: what `sum_vectors` divides, bounds and noises
    server   plan_sum, then open_sum with the sum of what so many sites sent, round by round from
             `nothing_opened`, then answer_sum: the sum answers as one large site would

`plan_sum` states two costs: `event`, which holds while that many honest sites' noise is in the sum
and known to nobody but them, and `alone`, which holds against all others together. With
`trust = "none"` both are one: the site's own noise is all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.mechanism import Plan, mechanism_named
from fedistill.mechanisms.sum_vectors import (
    SumVector,
    has_room,
    largest_for,
    noised,
    opened,
    sum_vector,
)

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Integers = npt.NDArray[np.int64]

SUMMABLE = ("corrections", "dp-probe", "votes", "sharded", "clipped", "clipped-site")
"""Names of the mechanisms whose integers may be summed."""

TRUSTS = ("none", "secagg")


@dataclass(frozen=True, kw_only=True)
class SumPlan(Plan):
    """What a site's part of a sum will do and cost, fixed before any private row is read.

    Attributes:
        event: The cost while the honest sites that the question counts on keep their noise.
        alone: The cost when everyone else colludes: that of the site's own noise.
        vectors: What is sent, one after the other.
        largest: Every integer that a site sends lies in [-largest, largest].
    """

    alone: "DpEvent"
    vectors: tuple[SumVector, ...]
    largest: int

    @property
    def length(self) -> int:
        """Integers that a site sends."""
        return sum(vector.entries for vector in self.vectors)


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedSum:
    """What the server knows after a round; a function of noised sums.

    Attributes:
        weights: (num_features, num_classes); broadcast with the next round's question.
        count: Units of all sites in the first round, noised or a public bound; at least 1.
        num_sites: How many sites were in the sum of each round so far.
    """

    weights: Floats
    count: float
    num_sites: tuple[int, ...]


class Summable(Protocol):
    """What a mechanism offers whose integers are summed."""

    name: str

    def plan_sum(
        self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int, num_sites: int
    ) -> SumPlan:
        """The cost of a site's part in the sum over `num_sites` invited sites, from public values.

        Raises:
            PolicyRefusal: The question cannot be answered by a sum, or the sum has no room.
        """
        ...

    def noised_integers(
        self, rows: LabelledRows, proxy: ProxySet, plan: SumPlan, weights: Floats
    ) -> Integers:
        """What a site sends, (plan.length,) int64. Total (PRIVACY rule 3).

        Args:
            rows: The site's own.
            proxy: The public rows.
            plan: What was charged.
            weights: (num_features, num_classes) that the server sent; zero in a first round.
        """
        ...

    def open_sum(
        self,
        total: Integers,
        proxy: ProxySet,
        plan: SumPlan,
        *,
        num_sites: int,
        before: OpenedSum,
    ) -> OpenedSum:
        """What follows from a round's sum: post-processing, at the server.

        Args:
            total: (plan.length,) int64, the sum of what the sites sent.
            proxy: The public rows.
            plan: The round's, with whatever bound on a site's rows the server knows, or 0.
            num_sites: How many sites are in the sum.
            before: `nothing_opened` in a first round.
        """
        ...

    def answer_sum(
        self, opened: OpenedSum, proxy: ProxySet, plan: SumPlan
    ) -> tuple[LabelRelease, LinearResponse]:
        """The answer of all sites as that of one, and its law; `plan` is the last round's."""
        ...


def is_summed(question: LabelQuestion) -> bool:
    """Whether sites answer with integers that are summed, not with labels of their own."""
    return question.trust != "none" or question.mechanism == "corrections"


def summable(name: str) -> Summable:
    """The mechanism of that name, if its integers may be summed.

    Raises:
        PolicyRefusal: There is no such mechanism, or it noises something else than it sends.
    """
    mechanism = mechanism_named(name)
    if name not in SUMMABLE:
        raise PolicyRefusal(
            f"mechanism={name!r} cannot be summed over sites, for it noises something else than "
            f"what is summed: choose one of {', '.join(SUMMABLE)}, such as 'corrections', or "
            "trust='none'"
        )
    return cast(Summable, mechanism)


def nothing_opened(question: LabelQuestion, proxy: ProxySet) -> OpenedSum:
    """Where a first round starts: zero weights."""
    shape = (proxy_basis(proxy).map.num_features, question.num_classes)
    return OpenedSum(weights=np.zeros(shape), count=1.0, num_sites=())


def honest_sites(question: LabelQuestion, num_sites: int) -> int:
    """Sites whose noise is counted on: all that the question counts on, or the site's own alone.

    Raises:
        PolicyRefusal: `trust` is none that there is, or fewer sites were invited than counted on.
    """
    if question.trust not in TRUSTS:
        raise PolicyRefusal(
            f"trust={question.trust!r} must be {' or '.join(map(repr, TRUSTS))}: ask for one"
        )
    if num_sites < 1:
        raise PolicyRefusal(f"num-sites={num_sites} must be at least 1: invite more")
    if question.trust == "none":
        return 1
    if not 1 <= question.min_honest_sites <= num_sites:
        raise PolicyRefusal(
            f"min-honest-sites={question.min_honest_sites} must be from 1 to {num_sites}, the "
            "sites that were invited: lower it, or invite more"
        )
    return question.min_honest_sites


def plan_vectors(
    question: LabelQuestion,
    parts: Sequence[tuple[int, int, float]],
    *,
    rows_at_least: int,
    num_sites: int,
) -> SumPlan:
    """The plan of a sum of these vectors.

    Args:
        question: What was asked.
        parts: For each vector its entries, the squared L2 sensitivity of its exact sum, and the
            rho that it may cost.
        rows_at_least: The site's public lower bound on its rows.
        num_sites: How many sites were invited.

    Raises:
        PolicyRefusal: As `honest_sites`, or the sum has no room for the noise.
    """
    honest = honest_sites(question, num_sites)
    largest = largest_for(num_sites)
    vectors = tuple(
        sum_vector(entries, squared, rho, honest=honest) for entries, squared, rho in parts
    )
    for vector in vectors:
        if not has_room(vector, largest):
            raise PolicyRefusal(
                f"epsilon={question.epsilon} with {num_sites} sites needs noise of scale "
                f"{vector.scale:.3g} in integers of at most {largest}: raise epsilon, or invite "
                "fewer sites"
            )
    return SumPlan(
        question=question,
        event=_composed([vector.rho for vector in vectors]),
        alone=_composed([vector.rho_alone for vector in vectors]),
        rows_at_least=rows_at_least,
        vectors=vectors,
        largest=largest,
    )


def noised_vectors(plan: SumPlan, exact: Sequence[Integers]) -> Integers:
    """What a site sends of its exact sums, one array of any shape for each vector of the plan."""
    return np.concatenate(
        [
            noised(each, vector, plan.largest)
            for each, vector in zip(exact, plan.vectors, strict=True)
        ]
    )


def opened_vectors(plan: SumPlan, total: Integers) -> list[Floats]:
    """The vectors of an opened sum, each in steps of the mechanism's grid.

    Raises:
        ValueError: The sum has not as many integers as the plan.
    """
    if total.shape != (plan.length,):
        raise ValueError(f"total has shape {total.shape}, must be ({plan.length},)")
    ends = np.cumsum([vector.entries for vector in plan.vectors])[:-1]
    return [
        opened(part, vector)
        for part, vector in zip(np.split(total, ends), plan.vectors, strict=True)
    ]


def counted(noised_count: float, plan: SumPlan, num_sites: int) -> float:
    """Units in a sum: a noised count, or what the sites' declared bounds say."""
    return max(noised_count, float(plan.rows_at_least * num_sites), 1.0)


def _composed(rhos: Sequence[float]) -> "DpEvent":
    from dp_accounting import ComposedDpEvent, ZCDpEvent

    events = [ZCDpEvent(rho) for rho in rhos]
    return events[0] if len(events) == 1 else ComposedDpEvent(events)
