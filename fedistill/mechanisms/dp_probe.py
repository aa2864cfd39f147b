"""`dp-probe`: softmax regression on public features by noisy full-batch sums.

Adjacency: add or remove one unit. Unit: record, or group where the rows name units.

Release: T gradient sums and one record count. In round t each record x contributes the integer
matrix phi(x) r_t(x)^T, where phi(x) are its public features on the grid 2^-16 and r_t(x) its
residual e_y - softmax(W_t^T phi(x)), clipped so that the contribution's L2 norm stays within the
round's clip, divided by the number of rows of x's unit (see `unit_weights`) and rounded toward zero
on the grid 2^-14. W_t is a function of earlier releases.

Solvers, which differ in their rounds alone: in the first round W is zero and the sum is the moment
of phi and e_y - 1/K, whose norm is at most sqrt(1 - 1/K), so it is exact without clipping.
`moment` is that round alone; `combined` lets gradient rounds, clipped to `CLIP`, follow it;
`gradient` has gradient rounds only. Unless the question says how many rounds, `combined` takes more
of them, of more noise each, the larger the noised count is.

Sensitivity: adding a unit adds its records' contributions and leaves all others bit for bit as they
were (PRIVACY rule 8). Each of its r records is at most clip / r long, so a sum moves by at most its
clip in L2 over all features and classes together; the exact integer norm is checked and a record
beyond it contributes zero. The count is of units and moves by one.

Output law: each sum plus independent discrete Gaussians of one scale; rho = sensitivity^2 /
(2 scale^2) zCDP a sum (Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential
Privacy", Theorem 14), added over rounds and the count (Bun and Steinke 2016, Lemma 2.3, adaptive
composition). However many rounds the noised count asks for, they share one rho. Weights, labels on
public rows and `response` are post-processing.

Where sites are summed, `moment` sends its integers instead of labels: `summed_probe`.

`probe_sums` has the integers, `probe_steps` the preconditioner, which no private value but the
noised sums enters.
"""

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from dp_accounting import ComposedDpEvent, SelfComposedDpEvent, ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.probe_rounds import (
    COUNT_SHARE,
    FAINT_SIGNAL,
    GRADIENT_STEP,
    LARGE_SITE,
    Round,
    clips_of,
)
from fedistill.mechanisms.probe_steps import Step, response_of_steps, stepped
from fedistill.mechanisms.probe_sums import clipped_residuals, records_of, sum_of_contributions
from fedistill.mechanisms.summed_probe import SummedProbe
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for
from fedistill.privacy.grid import from_grid


@dataclass(frozen=True, kw_only=True)
class ProbePlan(Plan):
    """A planned release.

    Attributes:
        schedules: The sums at faint, common and large sites, in their order; each schedule costs
            the same, but for rounding.
        faint_below: Noised units below which a site is faint.
        count_scale: Of the noise in the record count.
    """

    schedules: tuple[tuple[Round, ...], ...]
    faint_below: float
    count_scale: float

    def rounds(self, count: float) -> tuple[Round, ...]:
        """The sums at a site of that noised count."""
        faint, common, large = self.schedules
        if count < self.faint_below:
            return faint
        return large if count >= LARGE_SITE else common


class DPProbe(SummedProbe):
    """The default mechanism; the law and its proof sketch stand in the module's docstring."""

    name = "dp-probe"
    units: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
    parameters: tuple[str, ...] = ("noised-count",)

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> ProbePlan:
        """Noise scales and their cost, from the question alone.

        Raises:
            PolicyRefusal: There is no such solver, or `moment` shall take more than one round.
        """
        rho = calibrate_rho(question.epsilon, question.delta, self.adjacency)
        schedules = tuple(
            tuple(Round(clip=clip, scale=scale_for(clip, each)) for clip in clips)
            for clips in clips_of(question)
            for each in [(1 - COUNT_SHARE) * rho / len(clips)]
        )
        count_scale = scale_for(1, COUNT_SHARE * rho)
        dearest = max(schedules, key=lambda rounds: sum(each.rho for each in rounds))
        sums = [
            SelfComposedDpEvent(ZCDpEvent(equal.rho), len(list(same)))
            for equal, same in groupby(dearest)
        ]
        return ProbePlan(
            question=question,
            event=ComposedDpEvent([ZCDpEvent(rho=0.5 / count_scale**2), *sums]),
            rows_at_least=rows_at_least,
            schedules=schedules,
            faint_below=FAINT_SIGNAL / math.sqrt(rho),
            count_scale=count_scale,
        )

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Train on private rows with noise, label the proxy set."""
        if not isinstance(plan, ProbePlan):
            raise TypeError(f"plan must be a ProbePlan, not {type(plan).__name__}")
        basis = proxy_basis(proxy)
        records = records_of(rows, basis, plan.question.num_classes)
        noised = int(add_noise(np.array([records.num_units]), plan.count_scale)[0])
        count = max(noised, plan.rows_at_least, 1)
        weights = np.zeros((basis.map.num_features, plan.question.num_classes))
        for this in plan.rounds(count):
            residuals = clipped_residuals(records, weights, clip=this.clip)
            exact_sum = sum_of_contributions(records.features, residuals)
            noisy_sum = from_grid(add_noise(exact_sum, this.scale), GRADIENT_STEP)
            weights = stepped(basis, weights, noisy_sum, _step(this, count))
        return self.answer(weights, proxy, plan, {"noised-count": count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the linearised rounds along the proxy set's eigenvectors."""
        plan = self.plan(question, proxy, rows_at_least=0)
        count = release.parameters["noised-count"]
        steps = [_step(this, count) for this in plan.rounds(count)]
        return response_of_steps(proxy_basis(proxy), release.log_odds, steps)

    def round_of(self, question: LabelQuestion) -> tuple[int, int]:
        """A sum over sites is one moment.

        Raises:
            PolicyRefusal: The question asks for steps, of which each site would take its own.
        """
        if question.solver != "moment":
            raise PolicyRefusal(
                f"solver={question.solver!r} must be 'moment' where the sites' integers are "
                "summed: choose it, or mechanism='corrections', which sums every step"
            )
        clips_of(question)
        return 1, 1


def _step(this: Round, count: float) -> Step:
    return Step(count=count, std=this.std, clip=this.clip * GRADIENT_STEP)
