"""`clipped`: one ordinary teacher; its whole matrix of log-odds is clipped to an L2 norm.

The honest baseline: what an institution would do first. The noise leaves answers that are no better
than chance at an epsilon of 5, and little better below about 50. Use it to compare.

Adjacency: add or remove one unit. Unit: record, or group where the rows name units (`clipped`), or
the whole site (`clipped-site`).

Release: the log-odds against class 0 that one teacher gives on all N proxy rows, N (K - 1)
integers in steps of 2^-16 nats, scaled down together so that their L2 norm stays within R =
`clip-norm`. The exact integer norm is checked; a matrix beyond it becomes zero.

Sensitivity: two matrices of norm at most R lie at most 2R apart, whatever the teacher did with a
record, or with all records of a unit; nothing is assumed about how it learns, so PRIVACY rule 8 is
not needed here. A site that joins or leaves adds a matrix of norm at most R to none, so the sum
moves by at most R.

Output law: the matrix plus independent discrete Gaussians of one scale; rho = sensitivity^2 /
(2 scale^2) zCDP (Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential
Privacy", Theorem 14). Weights, labels on public rows and `response` are post-processing.

Summed over sites, the same matrices are sent as `sum_vectors` has it, and the weights are fitted to
their mean. At site level a site is invited in both cases and adds its noise; what is hidden is
whether it has rows: without any it adds a matrix of zeros.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dp_accounting import ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import TeacherColumns, proxy_basis
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.linear_answers import fit_weights, response_of_labels
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.summed import (
    OpenedSum,
    SumPlan,
    noised_vectors,
    opened_vectors,
    plan_vectors,
)
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for
from fedistill.privacy.grid import (
    LABEL_BOUND,
    from_grid,
    squared_norms,
    to_grid,
)
from fedistill.teachers import rehearse, teacher_named

Integers = npt.NDArray[np.int64]

_STEP = 2.0**-16
_LARGEST_CLIP = 2.0**20
_MOST_ENTRIES = 2**24
_SMALLEST_SHARE = 1e-9
_REHEARSED_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class ClippedPlan(Plan):
    """A planned release.

    Attributes:
        clip: R in steps of 2^-16 nats.
        scale: Of the noise in each log-odd, in the same steps.
        entries: Log-odds in the matrix.
    """

    clip: int
    scale: float
    entries: int

    @property
    def variance(self) -> float:
        """Of the noise in each log-odd, in nats squared."""
        return (self.scale * _STEP) ** 2

    @property
    def signal(self) -> float:
        """Mean square of the log-odds of the largest matrix, in nats squared."""
        return (self.clip * _STEP) ** 2 / self.entries


class Clipped(LinearMechanism):
    """Record or group level; the law and its proof sketch stand in the module's docstring."""

    name = "clipped"
    units: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
    parameters: tuple[str, ...] = ("rows-at-least",)
    _matrices_moved = 2
    """L2 sensitivity in units of R."""

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> ClippedPlan:
        """Noise scale and its cost, from the question and the size of the proxy set.

        Raises:
            PolicyRefusal: There is no such teacher, it cannot learn public rows, or the clip or
                the number of labels is out of bounds.
        """
        plan = self._plan(question, proxy, rows_at_least)
        rehearsed = TeacherColumns.of(proxy).transform(proxy.rows)[:_REHEARSED_ROWS]
        rehearse(question.teacher, question.num_classes, rehearsed)
        return plan

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Train one teacher, clip and noise what it answers, label the proxy set."""
        if not isinstance(plan, ClippedPlan):
            raise TypeError(f"plan must be a ClippedPlan, not {type(plan).__name__}")
        answers = teacher_log_odds(rows, proxy, plan.question)
        clipped = clip_matrix(answers, plan.clip)
        noised = add_noise(clipped, plan.scale)
        basis = proxy_basis(proxy)
        weights = fit_weights(
            basis, from_grid(noised, _STEP), variance=plan.variance, signal=plan.signal
        )
        return self.answer(weights, proxy, plan, {"rows-at-least": plan.rows_at_least})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the fit; the truth is what the teacher says after clipping."""
        plan = self._plan(question, proxy, rows_at_least=0)
        return response_of_labels(
            proxy_basis(proxy),
            num_answered=len(proxy.rows),
            variance=plan.variance,
            rows_at_least=release.parameters["rows-at-least"],
            num_classes=question.num_classes,
            signal=plan.signal,
        )

    def plan_sum(
        self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int, num_sites: int
    ) -> SumPlan:
        """A site's part of the matrices of all.

        Raises:
            PolicyRefusal: See `plan` and `plan_vectors`.
        """
        alone = self.plan(question, proxy, rows_at_least=rows_at_least)
        rho = calibrate_rho(question.epsilon, question.delta, self.adjacency)
        parts = [(alone.entries, (self._matrices_moved * alone.clip) ** 2, rho)]
        return plan_vectors(question, parts, rows_at_least=rows_at_least, num_sites=num_sites)

    def noised_integers(
        self, rows: LabelledRows, proxy: ProxySet, plan: SumPlan, weights: Floats
    ) -> Integers:
        """The noised matrix of the site's teacher."""
        answers = teacher_log_odds(rows, proxy, plan.question)
        return noised_vectors(plan, [clip_matrix(answers, _clip(plan.question))])

    def open_sum(
        self, total: Integers, proxy: ProxySet, plan: SumPlan, *, num_sites: int, before: OpenedSum
    ) -> OpenedSum:
        """Weights fitted to the mean of all matrices."""
        mean = opened_vectors(plan, total)[0] * (_STEP / num_sites)
        weights = fit_weights(
            proxy_basis(proxy),
            mean.reshape(len(proxy.rows), -1),
            variance=_variance_of_mean(plan, num_sites),
            signal=_signal(plan),
        )
        count = max(float(plan.rows_at_least * num_sites), 1.0)
        return OpenedSum(weights=weights, count=count, num_sites=(num_sites,))

    def answer_sum(
        self, opened: OpenedSum, proxy: ProxySet, plan: SumPlan
    ) -> tuple[LabelRelease, LinearResponse]:
        """The labels of the fit to the mean, and its law."""
        release, _ = self.answer(opened.weights, proxy, plan, {"rows-at-least": opened.count})
        return release, response_of_labels(
            proxy_basis(proxy),
            num_answered=len(proxy.rows),
            variance=_variance_of_mean(plan, opened.num_sites[-1]),
            rows_at_least=opened.count,
            num_classes=plan.question.num_classes,
            signal=_signal(plan),
        )

    def _plan(self, question: LabelQuestion, proxy: ProxySet, rows_at_least: int) -> ClippedPlan:
        entries = len(proxy.rows) * (question.num_classes - 1)
        if entries > _MOST_ENTRIES:
            raise PolicyRefusal(
                f"proxy rows times (classes - 1) = {entries} must be at most {_MOST_ENTRIES}: use "
                "fewer proxy rows"
            )
        if not _STEP <= question.clip_norm <= _LARGEST_CLIP:
            raise PolicyRefusal(
                f"clip-norm={question.clip_norm} must be from {_STEP:g} to {_LARGEST_CLIP:g}: "
                "choose about the square root of the number of proxy rows"
            )
        clip = _clip(question)
        sensitivity = self._matrices_moved * clip
        rho = calibrate_rho(question.epsilon, question.delta, self.adjacency)
        scale = scale_for(sensitivity, rho)
        return ClippedPlan(
            question=question,
            event=ZCDpEvent(rho=0.5 * (sensitivity / scale) ** 2),
            rows_at_least=rows_at_least,
            clip=clip,
            scale=scale,
            entries=entries,
        )


class SiteClipped(Clipped):
    """Site level: hides whether the whole site took part, at half the noise of `Clipped`."""

    name = "clipped-site"
    units = (Unit.SITE,)
    _matrices_moved = 1


def _clip(question: LabelQuestion) -> int:
    return math.floor(question.clip_norm / _STEP)


def _variance_of_mean(plan: SumPlan, num_sites: int) -> float:
    return (plan.vectors[0].std(num_sites) * _STEP / num_sites) ** 2


def _signal(plan: SumPlan) -> float:
    """Mean square of the log-odds of the largest matrix, in nats squared."""
    return (_clip(plan.question) * _STEP) ** 2 / plan.length


def teacher_log_odds(rows: LabelledRows, proxy: ProxySet, question: LabelQuestion) -> Floats:
    """Log-odds against class 0 on the proxy rows, (num_proxy, num_classes - 1), within +-8 nats.

    Total: records with an impossible label are left out, and those that no encoder can read; a
    teacher that fails answers uniform.
    """
    columns = TeacherColumns.of(proxy)
    valid = (rows.labels >= 0) & (rows.labels < question.num_classes) & columns.readable(rows.rows)
    shape = (len(proxy.rows), question.num_classes)
    # Any model may fail on some rows, and that it did must not be seen (PRIVACY rule 3).
    try:
        teacher = teacher_named(question.teacher, question.num_classes)
        teacher.fit(columns.transform(rows.rows)[valid], rows.labels[valid])
        answer = np.asarray(teacher.predict_proba(columns.transform(proxy.rows)), np.float64)
    except Exception:
        answer = np.ones(shape)
    if answer.shape != shape:
        answer = np.ones(shape)
    shares = np.clip(np.nan_to_num(answer, nan=0.0, posinf=0.0, neginf=0.0), _SMALLEST_SHARE, 1.0)
    logits = np.log(shares)
    log_odds: Floats = np.clip(logits[:, 1:] - logits[:, :1], -LABEL_BOUND, LABEL_BOUND)
    return log_odds


def clip_matrix(log_odds: Floats, clip: int) -> Integers:
    """Log-odds within +-8 nats as integers in steps of 2^-16 whose L2 norm, all together, is at
    most `clip`: scaled down, rounded toward zero, the exact norm checked.
    """
    norm = float(np.linalg.norm(log_odds)) / _STEP
    integers = to_grid(log_odds * min(1.0, clip / max(norm, 1.0)), _STEP)
    within = int(squared_norms(integers.reshape(1, -1))[0]) <= clip**2
    kept: Integers = integers * within
    return kept
