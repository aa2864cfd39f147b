"""`votes`: each record adds its label to its public cell of the proxy set; counts are noised.

Adjacency: add or remove one unit. Unit: record, or group where the rows name units.

Release: P * C cells by K classes of counts in steps of 1/G, C cells in each of P public partitions
of the feature space (k-means on proxy rows alone).

Sensitivity: a record's cells depend on that record and on public centroids alone, by exact
integers (PRIVACY rule 8). A record of a unit with r valid records adds floor(G / r) to one count in
each partition, r being 1 without units. So in each partition a unit adds non-negative integers that
sum to at most G, and a vector's L2 norm is at most its L1 norm. Over all partitions the counts move
by at most sqrt(P) G in L2, whatever the size of the proxy set and of the unit.

Output law: counts plus independent discrete Gaussians of one scale; rho = P G^2 / (2 scale^2) zCDP
(Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Theorem 14).
Weights, labels on public rows, the stated count (of units: all votes over P) and `response` are
post-processing: softmax regression on the cells' centres, see `cell_regression`.

Summed over sites, the same counts are sent as `sum_vectors` has it, and the weights are fitted to
the votes of all.

A noised histogram (Dwork, McSherry, Nissim and Smith 2006, "Calibrating Noise to Sensitivity in
Private Data Analysis", section 3) over cells that public data has drawn.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dp_accounting import ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.features.public_cells import PublicCells, public_cells
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.cell_regression import NoisedVotes, fit_votes, response_of_votes
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.summed import (
    OpenedSum,
    SumPlan,
    noised_vectors,
    opened_vectors,
    plan_vectors,
)
from fedistill.mechanisms.unit_weights import row_bounds
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for_squared

Integers = npt.NDArray[np.int64]

VOTE = 2**16
"""G: what a unit adds to the counts of each partition at most."""

MOST_CELLS = 10_000
MOST_PARTITIONS = 100
"""Bounds on the work that a server may ask for."""


@dataclass(frozen=True, kw_only=True)
class VotesPlan(Plan):
    """A planned release; `scale` is that of the noise in each count, in steps of 1/G."""

    scale: float

    @property
    def std(self) -> float:
        """Of the noise in each count, in votes."""
        return self.scale / VOTE


class Votes(LinearMechanism):
    """Counts in public cells; the law and its proof sketch stand in the module's docstring."""

    name = "votes"
    units: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
    parameters: tuple[str, ...] = ("noised-count",)

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> VotesPlan:
        """Noise scale and its cost, from the question alone.

        Raises:
            PolicyRefusal: The question asks for no cell or partition, or for too many to draw.
        """
        squared, rho = _sensitivity_and_cost(question)
        scale = scale_for_squared(squared, rho)
        return VotesPlan(
            question=question,
            event=ZCDpEvent(rho=0.5 * squared / scale**2),
            rows_at_least=rows_at_least,
            scale=scale,
        )

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Count private rows in public cells, noise the counts, label the proxy set."""
        if not isinstance(plan, VotesPlan):
            raise TypeError(f"plan must be a VotesPlan, not {type(plan).__name__}")
        question, basis, cells = plan.question, proxy_basis(proxy), _cells(plan.question, proxy)
        votes = NoisedVotes(
            counts=add_noise(_count(rows, proxy, question), plan.scale) / VOTE,
            scale=plan.std,
            cells=cells,
            rows_at_least=plan.rows_at_least,
        )
        weights = fit_votes(basis, votes)
        return self.answer(weights, proxy, plan, {"noised-count": votes.count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the regression on noised counts, from public values."""
        plan = self.plan(question, proxy, rows_at_least=0)
        return response_of_votes(
            proxy_basis(proxy),
            release.log_odds,
            _cells(question, proxy),
            scale=plan.std,
            count=release.parameters["noised-count"],
        )

    def plan_sum(
        self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int, num_sites: int
    ) -> SumPlan:
        """A site's part of the counts of all.

        Raises:
            PolicyRefusal: See `plan` and `plan_vectors`.
        """
        squared, rho = _sensitivity_and_cost(question)
        entries = _cells(question, proxy).num_cells * question.num_classes
        parts = [(entries, squared, rho)]
        return plan_vectors(question, parts, rows_at_least=rows_at_least, num_sites=num_sites)

    def noised_integers(
        self, rows: LabelledRows, proxy: ProxySet, plan: SumPlan, weights: Floats
    ) -> Integers:
        """The site's noised counts."""
        return noised_vectors(plan, [_count(rows, proxy, plan.question)])

    def open_sum(
        self, total: Integers, proxy: ProxySet, plan: SumPlan, *, num_sites: int, before: OpenedSum
    ) -> OpenedSum:
        """Weights fitted to the votes of all sites."""
        votes = NoisedVotes(
            counts=opened_vectors(plan, total)[0].reshape(-1, plan.question.num_classes) / VOTE,
            scale=plan.vectors[0].std(num_sites) / VOTE,
            cells=_cells(plan.question, proxy),
            rows_at_least=plan.rows_at_least * num_sites,
        )
        weights = fit_votes(proxy_basis(proxy), votes)
        return OpenedSum(weights=weights, count=votes.count, num_sites=(num_sites,))

    def answer_sum(
        self, opened: OpenedSum, proxy: ProxySet, plan: SumPlan
    ) -> tuple[LabelRelease, LinearResponse]:
        """The labels of the fit to all votes, and its law."""
        release, _ = self.answer(opened.weights, proxy, plan, {"noised-count": opened.count})
        return release, response_of_votes(
            proxy_basis(proxy),
            release.log_odds,
            _cells(plan.question, proxy),
            scale=plan.vectors[0].std(opened.num_sites[-1]) / VOTE,
            count=opened.count,
        )


def count_votes(
    cells: PublicCells,
    features: Integers,
    labels: Integers,
    num_classes: int,
    *,
    units: Integers | None = None,
) -> Integers:
    """What is noised: votes for each label in each cell, (num_cells, num_classes), in steps of 1/G.

    Args:
        cells: The public cells.
        features: (num_rows, num_features) in steps of `FEATURE_STEP`.
        labels: (num_rows,); a record with an impossible label votes nowhere, and so does one
            whose features are all zero, which no encoder could read.
        num_classes: Classes of the task.
        units: (num_rows,) whose vote a record shares; None gives each record a vote of its own.
    """
    valid = (labels >= 0) & (labels < num_classes) & features.any(axis=1)
    places = cells.assign(features[valid]) * num_classes + labels[valid]
    counts = np.zeros(cells.num_cells * num_classes, np.int64)
    added = row_bounds(VOTE, units, valid)[valid]
    # One partition at a time: numpy 2.4's `add.at` reads beyond values that it has to broadcast.
    for partition in places:
        np.add.at(counts, partition, added)
    return counts.reshape(cells.num_cells, num_classes)


def _count(rows: LabelledRows, proxy: ProxySet, question: LabelQuestion) -> Integers:
    features = proxy_basis(proxy).map.transform(rows.rows)
    cells = _cells(question, proxy)
    return count_votes(cells, features, rows.labels, question.num_classes, units=rows.units)


def _sensitivity_and_cost(question: LabelQuestion) -> tuple[int, float]:
    """The squared L2 sensitivity of the counts, and the rho that they may cost."""
    _check("cells", question.cells, MOST_CELLS)
    _check("partitions", question.partitions, MOST_PARTITIONS)
    rho = calibrate_rho(question.epsilon, question.delta, Votes.adjacency)
    return question.partitions * VOTE**2, rho


def _check(field: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise PolicyRefusal(f"{field}={value} must be from 1 to {most}: ask for so many")


def _cells(question: LabelQuestion, proxy: ProxySet) -> PublicCells:
    return public_cells(proxy, cells=question.cells, partitions=question.partitions)
