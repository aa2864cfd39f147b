"""`dp-ebm`: InterpretML's DP explainable boosting machine; its labels are post-processing.

After Nori, Caruana, Bu, Shen and Kulkarni 2021, "Accuracy, Interpretability, and Differential
Privacy via Explainable Boosting", Algorithm 2. What follows was read in the source of
interpret-core 0.7.8, which `pyproject.toml` therefore names exactly; the paper does not say whether
neighbours differ by adding or by replacing a record, and the code settles it.

Adjacency: add or remove one record. Unit: record.

Release: one noised record count M; then, for each class against the rest (once for two classes),
a noised histogram of each of F columns and `ROUNDS` rounds of F noised sums of residuals.

Sensitivity: a histogram counts a record in one bin at most (`private_numeric_binning`). A boosting
step splits a column's bins at random places and sums residuals y - p, within +-1, in each section
(`_boost.boost`): a record adds at most 1 to one of them. So each moves by at most 1 in L2 when a
record comes or goes. (Replacing a record could move it by sqrt(2): the noise that InterpretML
adds is for add/remove, whatever its documentation calls neighbours.) With K > 2 classes
InterpretML refuses; here K machines are trained, one for each class, and all are charged.

Whatever else InterpretML would take from the rows is made public first: see `boosting_machines`.

Output law: each histogram plus Gaussians of scale s1, each step's sums plus Gaussians of scale
s2 (both as returned by InterpretML, in units of the sensitivity): the event lists K F of the
former and K F `ROUNDS` of the latter. InterpretML splits its epsilon by simple composition into
10% and 90%; here the two are composed by the accountant that charges, and the epsilon that
InterpretML is given is found by bisection on it (PRIVACY rule 9).

**Floating point.** Noise is drawn and added in float64. With `random_state=None` its bits come
from C++'s `std::random_device` (`RandomNondeterministic.hpp`): the processor's generator or that of
the operating system, no seed. The law is that of real numbers, see `dp_sgd`; so a site answers only
where its policy says `float-noise = "allow"`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from dp_accounting import ComposedDpEvent, DpEvent, GaussianDpEvent, SelfComposedDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.features.public_ranks import PublicRanks
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.boosting_machines import (
    ROUNDS,
    Budget,
    noise_multipliers,
    train_and_answer,
)
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.private_model import (
    PrivateModel,
    count_event,
    count_scale_for,
    fitting_rows,
    noised_count,
    require_package,
)
from fedistill.mechanisms.smooth_answers import response_of_rehearsals, weights_of
from fedistill.privacy.accountant import calibrate_rho, epsilon_of

MARGIN = 9.5
"""Scales of its noise by which the count is raised: exp(-9.5^2 / 2) < 2^-64."""

_MOST_COLUMNS = 1_000
_PRECISION = 1e-4
_REHEARSED_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class DPEBMPlan(Plan):
    """A planned release.

    Attributes:
        budget: What each of InterpretML's machines is given.
        count_scale: Of the noise in the record count.
    """

    budget: Budget
    count_scale: float


class DPEBM(PrivateModel):
    """Boosting machines, one or one a class; law and proof stand in the module's docstring."""

    name = "dp-ebm"

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> DPEBMPlan:
        """Noise and its cost, from the question and the columns of the proxy set.

        Raises:
            PolicyRefusal: InterpretML is not installed, or there are too many columns.
        """
        return _plan(question, proxy, rows_at_least)

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Count with noise, train with noise, label the proxy set."""
        if not isinstance(plan, DPEBMPlan):
            raise TypeError(f"plan must be a DPEBMPlan, not {type(plan).__name__}")
        ranks = PublicRanks.of(proxy)
        fitting = fitting_rows(rows, plan.question.num_classes) & ranks.columns.readable(rows.rows)
        noised = noised_count(fitting, plan.count_scale)
        logits = train_and_answer(
            ranks.transform(rows.rows)[fitting],
            rows.labels[fitting],
            ranks.transform(proxy.rows),
            plan.budget,
            total=_total(noised, plan),
        )
        count = max(noised, plan.rows_at_least, 1)
        weights = weights_of(proxy_basis(proxy), logits)
        return self.answer(weights, proxy, plan, {"noised-count": count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Noise as rehearsed on public rows; the truth is what the machine says without noise."""
        count = release.parameters["noised-count"]
        return _response(question, proxy, count)


def event_of(
    epsilon: float, delta: float, num_columns: int, machines: int, count_scale: float
) -> DpEvent:
    """The cost of a noised count and of so many machines."""
    binning, boosting = noise_multipliers(epsilon, delta, num_columns)
    return ComposedDpEvent(
        [
            count_event(count_scale),
            SelfComposedDpEvent(GaussianDpEvent(binning), machines * num_columns),
            SelfComposedDpEvent(GaussianDpEvent(boosting), machines * num_columns * ROUNDS),
        ]
    )


@lru_cache(maxsize=64)
def _given_epsilon(
    epsilon: float, delta: float, num_columns: int, machines: int, count_scale: float
) -> float:
    """The largest epsilon for each machine, to 1e-4 of it, that costs at most `epsilon` in all."""

    def fits(given: float) -> bool:
        event = event_of(given, delta, num_columns, machines, count_scale)
        return epsilon_of(event, delta, DPEBM.adjacency) <= epsilon

    low, high = epsilon, 2 * epsilon
    while not fits(low):
        low, high = low / 2, low
    while high - low > _PRECISION * low:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _plan(question: LabelQuestion, proxy: ProxySet, rows_at_least: int) -> DPEBMPlan:
    require_package("interpret", DPEBM.name)
    num_columns = PublicRanks.of(proxy).num_columns
    if num_columns > _MOST_COLUMNS:
        raise PolicyRefusal(
            f"dp-ebm takes at most {_MOST_COLUMNS} columns, and the proxy set has {num_columns} "
            "(with one for each category, or each number of an embedding): choose another "
            "mechanism, or an encoder of fewer numbers"
        )
    machines = 1 if question.num_classes == 2 else question.num_classes
    rho = calibrate_rho(question.epsilon, question.delta, DPEBM.adjacency)
    count_scale = count_scale_for(rho)
    cost = (question.delta, num_columns, machines, count_scale)
    given = _given_epsilon(question.epsilon, *cost)
    return DPEBMPlan(
        question=question,
        event=event_of(given, *cost),
        rows_at_least=rows_at_least,
        budget=Budget(epsilon=given, delta=question.delta, num_classes=question.num_classes),
        count_scale=count_scale,
    )


def _total(noised_count: int, plan: DPEBMPlan) -> int:
    return max(noised_count + math.ceil(MARGIN * plan.count_scale), plan.rows_at_least, 1)


@lru_cache(maxsize=64)
def _response(question: LabelQuestion, proxy: ProxySet, num_rows: float) -> LinearResponse:
    basis = proxy_basis(proxy)
    rehearsed = weights_of(basis, rehearsed_logits(_plan(question, proxy, 0), proxy, num_rows))
    return response_of_rehearsals(basis, [rehearsed], num_rows)


def rehearsed_logits(plan: DPEBMPlan, proxy: ProxySet, num_rows: float) -> Floats:
    """What machines answer that learned from public rows with a coin's labels, almost all noise.

    Beyond 20,000 rows the noise of 20,000 is scaled down.
    """
    columns = PublicRanks.of(proxy).transform(proxy.rows)
    count = int(min(max(num_rows, 1), _REHEARSED_ROWS))
    coin = np.random.default_rng(0).integers(0, plan.question.num_classes, count)
    rows = np.resize(columns, (count, columns.shape[1]))
    total = _total(count, plan)
    return train_and_answer(rows, coin, columns, plan.budget, total=total) * (
        count / max(num_rows, 1)
    )
