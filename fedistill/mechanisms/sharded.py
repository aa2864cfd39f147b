"""`sharded`: many ordinary teachers on disjoint shards; the sum of their soft labels is noised.

Adjacency: add or remove one unit, or replace one; k, N and G below are public. Unit: record, or
group where the rows name units: all rows of a unit lie in one shard.

Release: for N proxy rows, the sum over k teachers of their soft labels, integers in steps of 1/G;
and one count of records (of units, where the rows name theirs).

Sensitivity: a unit lies in one shard and a shard's rows alone decide its teacher's answers (see
`shards`), so one teacher's answer a becomes b. In each of the N rows a and b are non-negative and
sum to at most G, so |a - b|^2 = |a|^2 + |b|^2 - 2ab <= G^2 + G^2, and all rows and classes
together move by at most sqrt(2 N) G in L2. The count moves by at most one.

Output law: both plus independent discrete Gaussians; rho = sensitivity^2 / (2 scale^2) zCDP each
(Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Theorem 14),
added (Bun and Steinke 2016, Lemma 2.3). Averaging over the key of the
shards costs nothing: Renyi divergence is jointly quasi-convex (van Erven and Harremoes 2014,
"Renyi divergence and Kullback-Leibler divergence", Theorem 13). Weights and labels on all proxy
rows are post-processing: softmax regression on public features, see `noised_shares`.

After PATE (Papernot et al. 2017, "Semi-supervised knowledge transfer for deep learning from
private training data"), with soft labels and without data-dependent accounting.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dp_accounting import ComposedDpEvent, ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import Expansion, ProxyBasis, proxy_basis
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.noised_shares import fit_noised_shares, response_of_shares
from fedistill.mechanisms.shards import deal
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for
from fedistill.teachers import TeacherModel, TeachesMany, rehearse, teacher_named

Integers = npt.NDArray[np.int64]
Shard = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

LARGEST_SUM = 2**16
"""G: the integers of a teacher's answer on one row sum to at most this."""

COUNT_SHARE = 0.01
"""Share of rho that pays for the noised count of units."""


@dataclass(frozen=True, kw_only=True)
class ShardedPlan(Plan):
    """A planned release.

    Attributes:
        num_queries: Proxy rows that are answered: the first of the set.
        scale: Of the noise in the sum of answers, in steps of 1/G.
        count_scale: Of the noise in the count of units.
    """

    num_queries: int
    scale: float
    count_scale: float

    @property
    def share_variance(self) -> float:
        """Of the noise in a class's share, as a mean over the teachers."""
        return (self.scale / (self.question.shards * LARGEST_SUM)) ** 2


class Sharded(LinearMechanism):
    """Teachers of any kind; the law and its proof sketch stand in the module's docstring."""

    name = "sharded"
    units: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
    parameters: tuple[str, ...] = ("noised-count",)

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> ShardedPlan:
        """Noise scales and their cost, from the question and the size of the proxy set.

        Raises:
            PolicyRefusal: There is no such teacher, it cannot learn public rows, or the question
                asks for no shard or no row.
        """
        plan = _plan(question, proxy, rows_at_least)
        rehearse(question.teacher, question.num_classes, _asked(proxy, plan))
        return plan

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Train a teacher on each shard, sum their answers with noise, label the proxy set."""
        if not isinstance(plan, ShardedPlan):
            raise TypeError(f"plan must be a ShardedPlan, not {type(plan).__name__}")
        question = plan.question
        fitting = (rows.labels >= 0) & (rows.labels < question.num_classes)
        kept = rows.take(np.flatnonzero(fitting))
        features = Expansion.of(proxy.schema).transform(kept.rows)
        shards = [(features[index], kept.labels[index]) for index in deal(kept, question.shards)]
        exact_sum = sum_of_answers(question, shards, _asked(proxy, plan))
        noised_sum = add_noise(exact_sum, plan.scale)
        noised_count = int(add_noise(np.array([kept.num_units]), plan.count_scale)[0])
        basis = proxy_basis(proxy)
        weights = fit_noised_shares(
            basis.values[: plan.num_queries],
            noised_sum / (question.shards * LARGEST_SUM),
            variance=plan.share_variance,
        )
        count = max(noised_count, plan.rows_at_least)
        return self.answer(weights, proxy, plan, {"noised-count": count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the regression on noised shares, from public values."""
        plan = _plan(question, proxy, rows_at_least=0)
        basis: ProxyBasis = proxy_basis(proxy)
        return response_of_shares(
            basis,
            release.log_odds,
            num_answered=plan.num_queries,
            variance=plan.share_variance,
            num_rows=release.parameters["noised-count"],
        )


def sum_of_answers(
    question: LabelQuestion, shards: Sequence[Shard], asked: npt.NDArray[np.float32]
) -> Integers:
    """What is noised: all teachers' integer answers, (num_asked, num_classes)."""
    total = np.zeros((len(asked), question.num_classes), np.int64)
    for answer in _answers(question, shards, asked):
        total += on_label_grid(answer, total.shape)
    return total


def on_label_grid(answer: Floats, shape: tuple[int, int]) -> Integers:
    """A teacher's probabilities as integers: non-negative, each row's sum at most G.

    Rounded down. A row that is no distribution becomes the uniform one, so that nothing a teacher
    answers can break the bound.

    Args:
        answer: (num_asked, num_classes) if the teacher keeps its contract.
        shape: What it should be.
    """
    uniform = LARGEST_SUM // shape[1]
    if answer.shape != shape:
        return np.full(shape, uniform, np.int64)
    possible = np.isfinite(answer) & (answer >= 0) & (answer <= 1)
    integers = np.floor(np.where(possible, answer, 0.0) * LARGEST_SUM).astype(np.int64)
    # Floats may sum to a little over one.
    excess = integers.sum(axis=1) - LARGEST_SUM
    near = possible.all(axis=1) & (excess <= np.minimum(shape[1], integers.max(axis=1)))
    row, largest = np.arange(len(integers)), integers.argmax(axis=1)
    integers[row, largest] -= np.maximum(excess, 0) * near
    bounded: Integers = np.where(near[:, None], integers, uniform)
    return bounded


def _answers(
    question: LabelQuestion, shards: Sequence[Shard], asked: npt.NDArray[np.float32]
) -> Iterator[Floats]:
    """Each teacher's answers; of a teacher that fails, none, which counts as uniform."""
    teacher = teacher_named(question.teacher, question.num_classes)
    if isinstance(teacher, TeachesMany):
        for fitted in teacher.fit_many(shards):
            yield fitted.predict_proba(asked)
        return
    for shard in shards:
        yield _answer(teacher, shard, asked)


def _answer(teacher: TeacherModel, shard: Shard, asked: npt.NDArray[np.float32]) -> Floats:
    # Any model may fail on some rows, and that it did must not be seen (PRIVACY rule 3).
    try:
        return np.asarray(teacher.fit(*shard).predict_proba(asked), dtype=np.float64)
    except Exception:
        return np.zeros((0, 0))


def _plan(question: LabelQuestion, proxy: ProxySet, rows_at_least: int) -> ShardedPlan:
    for field, value in (("shards", question.shards), ("queries", question.queries)):
        if value < 1:
            raise PolicyRefusal(f"{field}={value} must be at least 1: ask for more")
    num_queries = min(question.queries, len(proxy.rows))
    rho = calibrate_rho(question.epsilon, question.delta, Sharded.adjacency)
    sensitivity = sensitivity_of(num_queries)
    scale = scale_for(sensitivity, (1 - COUNT_SHARE) * rho)
    count_scale = scale_for(1, COUNT_SHARE * rho)
    answers = ZCDpEvent(rho=0.5 * (sensitivity / scale) ** 2)
    return ShardedPlan(
        question=question,
        event=ComposedDpEvent([ZCDpEvent(rho=0.5 / count_scale**2), answers]),
        rows_at_least=rows_at_least,
        num_queries=num_queries,
        scale=scale,
        count_scale=count_scale,
    )


def sensitivity_of(num_queries: int) -> int:
    """L2 sensitivity of the sum of answers on so many rows: sqrt(2 N) G, rounded up."""
    return math.isqrt(2 * num_queries * LARGEST_SUM**2 - 1) + 1


def _asked(proxy: ProxySet, plan: ShardedPlan) -> npt.NDArray[np.float32]:
    return Expansion.of(proxy.schema).transform(proxy.rows[: plan.num_queries])
