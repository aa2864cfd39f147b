"""Softmax regression on public features whose noised sums are summed over sites.

Base of `corrections`, and of `dp-probe` where a moment is all that it sends: the same sums and
steps, with the sum over sites inside the loop.

Release: in a round, the sum over the site's records of phi(x) (e_y - softmax(W^T phi(x)))^T at
weights W that the server sent, as `dp_probe` has it; and in the first round, in which W is zero,
the number of units.

Sensitivity: the record's part is clipped to sqrt(1 - 1/K) in the first round, where that changes
nothing, and to `CLIP` in later ones, whatever W is; the exact integer norm is checked. A unit that
comes or goes moves the sum by at most the clip, and the count by one. Division to the coarser grid
on which sites are summed adds what `sum_vectors` states, which has the output law too.

The rounds compose adaptively: W is a function of earlier sums (Bun and Steinke 2016, Lemma 2.3).
Each costs an equal part of rho, and `COUNT_SHARE` of all of it pays for the count.
"""

import math

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows, ProxySet
from fedistill.features import proxy_basis
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.mechanisms.probe_rounds import CLIP, COUNT_SHARE, GRADIENT_STEP, moment_clip
from fedistill.mechanisms.probe_steps import Step, response_of_steps, stepped
from fedistill.mechanisms.probe_sums import clipped_residuals, records_of, sum_of_contributions
from fedistill.mechanisms.sum_vectors import SumVector, sum_vector
from fedistill.mechanisms.summed import (
    OpenedSum,
    SumPlan,
    counted,
    noised_vectors,
    opened_vectors,
    plan_vectors,
)
from fedistill.privacy.accountant import calibrate_rho

Integers = npt.NDArray[np.int64]


class SummedProbe(LinearMechanism):
    """A part in a sum, and what follows from the sum; leaves the number of rounds to others."""

    def round_of(self, question: LabelQuestion) -> tuple[int, int]:
        """Which round the question asks for, and of how many.

        Raises:
            PolicyRefusal: It asks for none that there is.
        """
        raise NotImplementedError

    def plan_sum(
        self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int, num_sites: int
    ) -> SumPlan:
        """Noise scales and their cost, from the question and the size of the public basis.

        Raises:
            PolicyRefusal: See `round_of` and `plan_vectors`.
        """
        number, _ = self.round_of(question)
        count = (1, 1, COUNT_SHARE * self._rho(question))
        parts = [self._part(question, proxy, number), count]
        return plan_vectors(
            question,
            parts if number == 1 else parts[:1],
            rows_at_least=rows_at_least,
            num_sites=num_sites,
        )

    def noised_integers(
        self, rows: LabelledRows, proxy: ProxySet, plan: SumPlan, weights: Floats
    ) -> Integers:
        """The noised sum of the site's clipped contributions at these weights, and its count."""
        question = plan.question
        records = records_of(rows, proxy_basis(proxy), question.num_classes)
        clip = _clip(question, self.round_of(question)[0])
        residuals = clipped_residuals(records, weights, clip=clip)
        exact = [
            sum_of_contributions(records.features, residuals),
            np.array([records.num_units], np.int64),
        ]
        return noised_vectors(plan, exact[: len(plan.vectors)])

    def open_sum(
        self,
        total: Integers,
        proxy: ProxySet,
        plan: SumPlan,
        *,
        num_sites: int,
        before: OpenedSum,
    ) -> OpenedSum:
        """Weights after the step of this round."""
        sums = opened_vectors(plan, total)
        sites = (*before.num_sites, num_sites)
        first = len(sites) == 1
        whole = counted(float(sums[1][0]), plan, num_sites) if first else before.count
        # Which of the first round's sites are gone is not known: all count alike.
        count = whole * num_sites / sites[0]
        noisy_sum = sums[0].reshape(before.weights.shape) * GRADIENT_STEP
        step = _step(plan.question, len(sites), plan.vectors[0], count, num_sites)
        return OpenedSum(
            weights=stepped(proxy_basis(proxy), before.weights, noisy_sum, step),
            count=whole,
            num_sites=sites,
        )

    def answer_sum(
        self, opened: OpenedSum, proxy: ProxySet, plan: SumPlan
    ) -> tuple[LabelRelease, LinearResponse]:
        """The labels that the weights give, and the law of the steps that led to them."""
        stated = {"noised-count": opened.count}
        release, _ = self.answer(opened.weights, proxy, plan, stated)
        return release, self.response_of_sum(opened, release, proxy, plan)

    def response_of_sum(
        self, opened: OpenedSum, release: LabelRelease, proxy: ProxySet, plan: SumPlan
    ) -> LinearResponse:
        """Gain and noise of the steps that led to a release."""
        honest = plan.vectors[0].honest
        steps = [
            _step(
                plan.question,
                number,
                sum_vector(*self._part(plan.question, proxy, number), honest=honest),
                opened.count * num_sites / opened.num_sites[0],
                num_sites,
            )
            for number, num_sites in enumerate(opened.num_sites, start=1)
        ]
        return response_of_steps(proxy_basis(proxy), release.log_odds, steps)

    def _part(
        self, question: LabelQuestion, proxy: ProxySet, number: int
    ) -> tuple[int, int, float]:
        """Of the sum of that round: its entries, its squared sensitivity, and what it may cost."""
        _, rounds = self.round_of(question)
        entries = proxy_basis(proxy).map.num_features * question.num_classes
        rho = (1 - COUNT_SHARE) * self._rho(question) / rounds
        return entries, _clip(question, number) ** 2, rho

    def _rho(self, question: LabelQuestion) -> float:
        return calibrate_rho(question.epsilon, question.delta, self.adjacency)


def _clip(question: LabelQuestion, number: int) -> int:
    """L2 bound of a unit's part of that round's sum, in steps of 2^-30."""
    clip = moment_clip(question.num_classes) if number == 1 else CLIP
    return math.floor(clip / GRADIENT_STEP)


def _step(
    question: LabelQuestion, number: int, vector: SumVector, count: float, num_sites: int
) -> Step:
    return Step(
        count=count,
        std=vector.std(num_sites) * GRADIENT_STEP,
        clip=_clip(question, number) * GRADIENT_STEP,
    )
