"""`sharded`: many ordinary teachers on disjoint shards; the sum of their answers is noised.

Adjacency: add or remove one unit, or replace one; k, N and G below are public. Unit: record, or
group where the rows name units: all rows of a unit lie in one shard.

Release: for N proxy rows, the sum over k teachers of their soft labels, integers in steps of 1/G;
and one count of records (of units, where the rows name theirs).

Sensitivity: a unit lies in one shard and a shard's rows alone decide its teacher's answers (see
`shards`; what a teacher sees of a row depends on that row alone, see `TeacherColumns`), so one
teacher's answer a becomes b. In each of the N rows a and b are non-negative and sum to at most G,
so |a - b|^2 = |a|^2 + |b|^2 - 2ab <= G^2 + G^2, and all rows and classes together move by at most
sqrt(2 N) G in L2. The count moves by at most one.

Output law: both plus independent discrete Gaussians; rho = sensitivity^2 / (2 scale^2) zCDP each
(Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Theorem 14),
added (Bun and Steinke 2016, Lemma 2.3). Averaging over the key of the
shards costs nothing: Renyi divergence is jointly quasi-convex (van Erven and Harremoes 2014,
"Renyi divergence and Kullback-Leibler divergence", Theorem 13). Weights and labels on all proxy
rows are post-processing: softmax regression on public features, see `noised_shares`.

Summed over sites, soft labels and counts are sent as `sum_vectors` has it; confident answers
cannot be, for which rows they are is seen in each site's votes.

After PATE (Papernot et al. 2017, "Semi-supervised knowledge transfer for deep learning from
private training data"), with soft labels and without data-dependent accounting. With
`answers = "confident"` teachers vote and only rows on which they agree are answered: `confident`
has that release, its sensitivity and its law.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dp_accounting import ComposedDpEvent, DpEvent, ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import ProxyBasis, TeacherColumns, proxy_basis
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.confident import (
    MASK,
    Confidence,
    answer_confidently,
    confidence_for,
    state_mask,
    stated_rows,
)
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.noised_shares import (
    fit_noised_shares,
    response_of_chosen,
    response_of_shares,
)
from fedistill.mechanisms.shard_answers import (
    LARGEST_SUM,
    Integers,
    Shard,
    sum_of_answers,
    sum_of_votes,
)
from fedistill.mechanisms.shards import deal
from fedistill.mechanisms.summed import (
    OpenedSum,
    SumPlan,
    counted,
    noised_vectors,
    opened_vectors,
    plan_vectors,
)
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for
from fedistill.teachers import rehearse

ANSWERS = ("soft", "confident")
"""What teachers may answer with: soft labels of all rows asked, or votes where they agree."""

COUNT_SHARE = 0.01
"""Share of rho that pays for the noised count of units."""


@dataclass(frozen=True, kw_only=True)
class ShardedPlan(Plan):
    """A planned release.

    Attributes:
        num_queries: Proxy rows that are asked: the first of the set.
        scale: Of the noise in the sum of answers, whose unit is 1/G of a soft label, or a vote.
        count_scale: Of the noise in the count of units.
        confidence: When a row is answered; None where all are, by soft labels.
    """

    num_queries: int
    scale: float
    count_scale: float
    confidence: Confidence | None = None

    @property
    def whole(self) -> int:
        """What all teachers' answers on one row sum to at most, in the unit of `scale`."""
        return self.question.shards * (LARGEST_SUM if self.confidence is None else 1)

    @property
    def share_variance(self) -> float:
        """Of the noise in a class's share, as a mean over the teachers."""
        return (self.scale / self.whole) ** 2


class Sharded(LinearMechanism):
    """Teachers of any kind; the law and its proof sketch stand in the module's docstring."""

    name = "sharded"
    units: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
    parameters: tuple[str, ...] = ("noised-count", *MASK)

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> ShardedPlan:
        """Noise scales and their cost, from the question and the size of the proxy set.

        Raises:
            PolicyRefusal: There is no such teacher, it cannot learn public rows, or the question
                asks for no shard or no row, for another kind of answers, or out of its bounds.
        """
        plan = _plan(question, proxy, rows_at_least)
        rehearse(question.teacher, question.num_classes, _asked(proxy, plan.num_queries))
        return plan

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Train a teacher on each shard, sum their answers with noise, label the proxy set.

        It states which rows were chosen, where some are (`confident`).
        """
        if not isinstance(plan, ShardedPlan):
            raise TypeError(f"plan must be a ShardedPlan, not {type(plan).__name__}")
        shards, num_units = _shards(rows, proxy, plan.question)
        answered, noised_sum = _noised_sum(plan, shards, _asked(proxy, plan.num_queries))
        noised_count = int(add_noise(np.array([num_units]), plan.count_scale)[0])
        basis = proxy_basis(proxy)
        weights = fit_noised_shares(
            basis.values[answered], noised_sum / plan.whole, variance=plan.share_variance
        )
        count = max(noised_count, plan.rows_at_least, 1)
        mask = state_mask(answered if plan.confidence else answered[:0])
        return self.answer(weights, proxy, plan, {"noised-count": count} | mask)

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the regression on noised shares, from public values."""
        plan = _plan(question, proxy, rows_at_least=0)
        basis: ProxyBasis = proxy_basis(proxy)
        num_rows = release.parameters["noised-count"]
        if plan.confidence is not None:
            return response_of_chosen(
                basis,
                release.log_odds,
                rows=stated_rows(release.parameters, plan.confidence),
                variance=plan.share_variance,
                num_rows=num_rows,
            )
        return response_of_shares(
            basis,
            release.log_odds,
            num_answered=plan.num_queries,
            variance=plan.share_variance,
            num_rows=num_rows,
        )

    def plan_sum(
        self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int, num_sites: int
    ) -> SumPlan:
        """A site's part of the soft labels of all teachers.

        Raises:
            PolicyRefusal: See `plan` and `plan_vectors`; or confident answers are asked for.
        """
        if question.answers == "confident":
            raise PolicyRefusal(
                "answers='confident' must be 'soft' where the sites' integers are summed: choose "
                "it, or trust='none'"
            )
        num_queries = self.plan(question, proxy, rows_at_least=rows_at_least).num_queries
        rho = calibrate_rho(question.epsilon, question.delta, self.adjacency)
        answers = num_queries * question.num_classes, 2 * num_queries * LARGEST_SUM**2
        parts = [(*answers, (1 - COUNT_SHARE) * rho), (1, 1, COUNT_SHARE * rho)]
        return plan_vectors(question, parts, rows_at_least=rows_at_least, num_sites=num_sites)

    def noised_integers(
        self, rows: LabelledRows, proxy: ProxySet, plan: SumPlan, weights: Floats
    ) -> Integers:
        """The noised sum of the soft labels of the site's teachers, and its count."""
        shards, num_units = _shards(rows, proxy, plan.question)
        num_queries = plan.vectors[0].entries // plan.question.num_classes
        exact = sum_of_answers(plan.question, shards, _asked(proxy, num_queries))
        return noised_vectors(plan, [exact, np.array([num_units], np.int64)])

    def open_sum(
        self, total: Integers, proxy: ProxySet, plan: SumPlan, *, num_sites: int, before: OpenedSum
    ) -> OpenedSum:
        """Weights fitted to the mean over the teachers of all sites."""
        answers, count = opened_vectors(plan, total)
        shares = answers.reshape(-1, plan.question.num_classes)
        shares /= plan.question.shards * LARGEST_SUM * num_sites
        weights = fit_noised_shares(
            proxy_basis(proxy).values[: len(shares)],
            shares,
            variance=_share_variance(plan, num_sites),
        )
        units = counted(float(count[0]), plan, num_sites)
        return OpenedSum(weights=weights, count=units, num_sites=(num_sites,))

    def answer_sum(
        self, opened: OpenedSum, proxy: ProxySet, plan: SumPlan
    ) -> tuple[LabelRelease, LinearResponse]:
        """The labels of the fit to all teachers' answers, and its law."""
        stated = {"noised-count": opened.count} | state_mask(np.zeros(0, np.int64))
        release, _ = self.answer(opened.weights, proxy, plan, stated)
        return release, response_of_shares(
            proxy_basis(proxy),
            release.log_odds,
            num_answered=plan.vectors[0].entries // plan.question.num_classes,
            variance=_share_variance(plan, opened.num_sites[-1]),
            num_rows=opened.count,
        )


def _plan(question: LabelQuestion, proxy: ProxySet, rows_at_least: int) -> ShardedPlan:
    for field, value in (("shards", question.shards), ("queries", question.queries)):
        if value < 1:
            raise PolicyRefusal(f"{field}={value} must be at least 1: ask for more")
    if question.answers not in ANSWERS:
        raise PolicyRefusal(
            f"answers={question.answers!r} must be {' or '.join(map(repr, ANSWERS))}: ask for one"
        )
    num_queries = min(question.queries, len(proxy.rows))
    rho = calibrate_rho(question.epsilon, question.delta, Sharded.adjacency)
    count_scale = scale_for(1, COUNT_SHARE * rho)
    confidence, scale, answers = _noise(question, num_queries, (1 - COUNT_SHARE) * rho)
    return ShardedPlan(
        question=question,
        event=ComposedDpEvent([ZCDpEvent(rho=0.5 / count_scale**2), answers]),
        rows_at_least=rows_at_least,
        num_queries=num_queries,
        scale=scale,
        count_scale=count_scale,
        confidence=confidence,
    )


def _noise(
    question: LabelQuestion, num_queries: int, rho: float
) -> tuple[Confidence | None, float, DpEvent]:
    """The noise of the answers, and its cost."""
    if question.answers == "confident":
        confidence = confidence_for(question, num_queries, rho)
        return confidence, confidence.vote_scale, confidence.event
    sensitivity = sensitivity_of(num_queries)
    scale = scale_for(sensitivity, rho)
    return None, scale, ZCDpEvent(rho=0.5 * (sensitivity / scale) ** 2)


def _noised_sum(
    plan: ShardedPlan, shards: Sequence[Shard], asked: npt.NDArray[np.float32]
) -> tuple[Integers, Integers]:
    """Indices of the answered rows, (num_answered,), and their noised sums of answers."""
    if plan.confidence is not None:
        return answer_confidently(sum_of_votes(plan.question, shards, asked), plan.confidence)
    exact = sum_of_answers(plan.question, shards, asked)
    return np.arange(len(asked)), add_noise(exact, plan.scale)


def sensitivity_of(num_queries: int) -> int:
    """L2 sensitivity of the sum of answers on so many rows: sqrt(2 N) G, rounded up."""
    return math.isqrt(2 * num_queries * LARGEST_SUM**2 - 1) + 1


def _asked(proxy: ProxySet, num_queries: int) -> npt.NDArray[np.float32]:
    return TeacherColumns.of(proxy).transform(proxy.rows)[:num_queries]


def _shards(
    rows: LabelledRows, proxy: ProxySet, question: LabelQuestion
) -> tuple[list[Shard], int]:
    """What each teacher learns from, and of how many units."""
    columns = TeacherColumns.of(proxy)
    fitting = (rows.labels >= 0) & (rows.labels < question.num_classes)
    fitting &= columns.readable(rows.rows)
    kept = rows.take(np.flatnonzero(fitting))
    features = columns.transform(rows.rows)[fitting]
    shards = [(features[index], kept.labels[index]) for index in deal(kept, question.shards)]
    return shards, kept.num_units


def _share_variance(plan: SumPlan, num_sites: int) -> float:
    """Of the noise in a class's share, as a mean over the teachers of all sites."""
    whole = plan.question.shards * LARGEST_SUM * num_sites
    return (plan.vectors[0].std(num_sites) / whole) ** 2
