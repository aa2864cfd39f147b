"""`corrections`: dp-probe's steps with the sum over all sites inside the loop.

In each federation round the server sends weights on the public features, sites answer with how far
their labels are from what these weights say, summed over their records, clipped and noised, and the
server takes one preconditioned step by the sum over sites. After the last round the weights are the
answer of all sites as one.

Adjacency: add or remove one unit. Unit: record, or group where the rows name units.

Release, sensitivity and output law: see `summed_probe`, of which this is the form with
`question.rounds` rounds. Each round is a question of its own and costs what its plan says; all of
them together cost the question's epsilon.

Asked for labels of its own (`plan`, `release`), a site is a federation of one: it takes all rounds
by itself, with all noise its own.
"""

from dataclasses import dataclass, replace

from dp_accounting import ComposedDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.labels import LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.summed import OpenedSum, SumPlan, nothing_opened
from fedistill.mechanisms.summed_probe import SummedProbe
from fedistill.privacy.adjacency import Unit

MOST_ROUNDS = 100
"""Bound on the work that a server may ask for."""


@dataclass(frozen=True, kw_only=True)
class CorrectionsPlan(Plan):
    """A planned release of a site that is asked alone: the plans of all its rounds."""

    rounds: tuple[SumPlan, ...]


class Corrections(SummedProbe):
    """Rounds over sites; the law and its proof sketch stand in the module's docstring."""

    name = "corrections"
    units: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
    parameters: tuple[str, ...] = ("noised-count",)

    def round_of(self, question: LabelQuestion) -> tuple[int, int]:
        """The round and the rounds of the question.

        Raises:
            PolicyRefusal: There are too many rounds, or there is no such round.
        """
        if not 1 <= question.rounds <= MOST_ROUNDS:
            raise PolicyRefusal(
                f"rounds={question.rounds} must be from 1 to {MOST_ROUNDS}: ask for so many"
            )
        if not 1 <= question.round <= question.rounds:
            raise PolicyRefusal(
                f"round={question.round} must be from 1 to rounds={question.rounds}: ask for one "
                "of them"
            )
        return question.round, question.rounds

    def plan(
        self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int
    ) -> CorrectionsPlan:
        """All rounds of a site that is asked alone.

        Raises:
            PolicyRefusal: See `round_of` and `plan_vectors`; or noise that is shared.
        """
        if question.trust != "none":
            raise PolicyRefusal(
                f"trust={question.trust!r} must be 'none' where a site answers alone: set "
                "secure-aggregation = true to share noise"
            )
        self.round_of(question)
        rounds = tuple(
            self.plan_sum(
                replace(question, round=number), proxy, rows_at_least=rows_at_least, num_sites=1
            )
            for number in range(1, question.rounds + 1)
        )
        return CorrectionsPlan(
            question=question,
            event=ComposedDpEvent([each.event for each in rounds]),
            rows_at_least=rows_at_least,
            rounds=rounds,
        )

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Take all rounds with the site's own rows, label the proxy set."""
        if not isinstance(plan, CorrectionsPlan):
            raise TypeError(f"plan must be a CorrectionsPlan, not {type(plan).__name__}")
        state = nothing_opened(plan.question, proxy)
        for each in plan.rounds:
            sent = self.noised_integers(rows, proxy, each, state.weights)
            state = self.open_sum(sent, proxy, each, num_sites=1, before=state)
        return self.answer(state.weights, proxy, plan, {"noised-count": state.count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the rounds that one site took."""
        plan = self.plan(question, proxy, rows_at_least=0)
        state = OpenedSum(
            weights=nothing_opened(question, proxy).weights,
            count=release.parameters["noised-count"],
            num_sites=(1,) * question.rounds,
        )
        return self.response_of_sum(state, release, proxy, plan.rounds[-1])
