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

The preconditioner is the proxy set's curvature under Boehning's (1992) bound of 1/2, times the
noised count; no private value but the noised sums enters it.
"""

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from dp_accounting import ComposedDpEvent, SelfComposedDpEvent, ZCDpEvent

from fedistill.data import LabelledRows, ProxySet
from fedistill.features import FEATURE_STEP, ProxyBasis, proxy_basis
from fedistill.labels import (
    Floats,
    LabelQuestion,
    LabelRelease,
    LinearResponse,
    probabilities,
)
from fedistill.mechanisms.linear_mechanism import LinearMechanism
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.probe_rounds import (
    FAINT_SIGNAL,
    GRADIENT_STEP,
    LARGE_SITE,
    RESIDUAL_STEP,
    Round,
    clips_of,
)
from fedistill.mechanisms.unit_weights import unit_sizes
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.discrete_gaussian import add_noise, scale_for
from fedistill.privacy.grid import exact_matmul, from_grid, squared_norms, to_grid

Integers = npt.NDArray[np.int64]

STEP_SIZE = 1.0
RIDGE_PER_NOISE = 2.83
RIDGE_PER_ROW = 2e-3
COUNT_SHARE = 0.01
"""Share of rho that pays for the noised record count."""

CURVATURE_BOUND = 0.5
_WEIGHT_STEP = 2.0**-20
_LARGEST_WEIGHT = 2.0**11
_BLOCK_ROWS = 2**18


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


class DPProbe(LinearMechanism):
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
            exact_sum = _sum_of_contributions(records.features, residuals)
            noisy_sum = add_noise(exact_sum, this.scale)
            gradient = from_grid(noisy_sum, GRADIENT_STEP)
            gradient -= gradient.mean(axis=1, keepdims=True)
            weights = weights + STEP_SIZE * _preconditioned(basis, gradient, count, this.std)
        return self.answer(weights, proxy, plan, {"noised-count": count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Gain and noise of the linearised rounds along the proxy set's eigenvectors.

        One round takes w to w + a (f - w) + noise with a = STEP_SIZE n kappa lambda / (n lambda / 2
        + ridge). kappa is the curvature of the softmax under the release's own labels, lessened by
        the share that clipping takes away.
        """
        basis = proxy_basis(proxy)
        plan = self.plan(question, proxy, rows_at_least=0)
        count = release.parameters["noised-count"]
        shares = probabilities(release.log_odds)
        curvature = float(((shares * (1 - shares)).sum(axis=1) / (shares.shape[1] - 1)).mean())
        gain, noise_variance = np.zeros((2, len(basis.eigenvalues)))
        for this in plan.rounds(count):
            kappa = curvature * _unclipped_share(shares, basis, this.clip * GRADIENT_STEP)
            damping = _damping(basis, count, this.std)
            rate = STEP_SIZE * count * kappa * basis.eigenvalues / damping
            gain += rate * (1 - gain)
            noise_variance *= (1 - rate) ** 2
            noise_variance += (STEP_SIZE * this.std / damping) ** 2
        return LinearResponse(
            gain=gain,
            noise_variance=noise_variance,
            sampling_variance=1 / (count * curvature * basis.eigenvalues),
        )


@dataclass(frozen=True, kw_only=True)
class Records:
    """Rows that may contribute.

    Attributes:
        features: (num_rows, num_features), 2**16 stands for 1.
        labels: (num_rows,) class indices.
        unit_sizes: (num_rows,) how many rows the row's unit has among these; at least 1.
        num_units: How many units there are.
    """

    features: Integers
    labels: Integers
    unit_sizes: Integers
    num_units: int


def records_of(rows: LabelledRows, basis: ProxyBasis, num_classes: int) -> Records:
    """Rows with a possible label and with features; others contribute nothing (PRIVACY rule 3)."""
    features = basis.map.transform(rows.rows)
    possible = (rows.labels >= 0) & (rows.labels < num_classes)
    valid = np.flatnonzero(possible & features.any(axis=1))
    kept = rows.take(valid)
    return Records(
        features=features[valid],
        labels=kept.labels,
        unit_sizes=unit_sizes(kept.units, np.ones(len(valid), np.bool_)),
        num_units=kept.num_units,
    )


def clipped_residuals(records: Records, weights: Floats, *, clip: int) -> Integers:
    """Each record's residual e_y - p, its unit's phi r^T together at most `clip` in L2 norm.

    Args:
        records: Rows that may contribute.
        weights: (num_features, num_classes).
        clip: In steps of 2^-30.

    Returns:
        (num_rows, num_classes) int64, 2**14 stands for 1. Row i depends on record i, on the size of
        its unit and on `weights`; columns are combined one by one, never across rows.
    """
    # The bound is public and keeps the products exact, so no private row can make this raise.
    bounded = np.clip(weights, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
    logits = exact_matmul(records.features, to_grid(bounded, _WEIGHT_STEP))
    residuals = -_softmax_by_column(from_grid(logits, FEATURE_STEP * _WEIGHT_STEP))
    residuals[np.arange(len(residuals)), records.labels] += 1.0
    squared_features = squared_norms(records.features)
    norms = np.sqrt(_sum_of_columns(residuals * residuals))
    norms *= np.sqrt(squared_features) * FEATURE_STEP
    factor = np.minimum(1.0, clip * GRADIENT_STEP / np.maximum(norms, 1e-12))
    factor /= records.unit_sizes
    integers = to_grid(residuals * factor[:, None], RESIDUAL_STEP)
    within = squared_features * squared_norms(integers) <= (clip // records.unit_sizes) ** 2
    kept: Integers = integers * within[:, None]
    return kept


def _sum_of_contributions(features: Integers, residuals: Integers) -> Integers:
    """Sum over rows of phi r^T, (num_features, num_classes), in blocks that stay exact."""
    total = np.zeros((features.shape[1], residuals.shape[1]), np.int64)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        total += exact_matmul(features[block].T, residuals[block])
    return total


def _softmax_by_column(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: Floats = exponentials / _sum_of_columns(exponentials)[:, None]
    return share


def _sum_of_columns(values: Floats) -> Floats:
    """Row sums in a fixed order, whatever the number of rows."""
    total = np.zeros(len(values))
    for column in values.T:
        total = total + column
    return total


def _damping(basis: ProxyBasis, count: float, gradient_std: float) -> Floats:
    """Diagonal of the preconditioner's inverse along the eigenvectors of the curvature."""
    ridge = RIDGE_PER_NOISE * gradient_std + RIDGE_PER_ROW * count
    damping: Floats = CURVATURE_BOUND * count * basis.eigenvalues + ridge
    return damping


def _preconditioned(
    basis: ProxyBasis, gradient: Floats, count: float, gradient_std: float
) -> Floats:
    along = basis.eigenvectors.T @ gradient
    step: Floats = basis.eigenvectors @ (along / _damping(basis, count, gradient_std)[:, None])
    return step


def _unclipped_share(shares: Floats, basis: ProxyBasis, clip: float) -> float:
    """Expected factor that clipping leaves of a record's gradient, under the given labels."""
    norms = np.linalg.norm(basis.values, axis=1)
    left = np.zeros(len(shares))
    for label, share in enumerate(shares.T):
        residuals = np.eye(shares.shape[1])[label] - shares
        lengths = np.maximum(norms * np.linalg.norm(residuals, axis=1), 1e-12)
        left += share * np.minimum(1.0, clip / lengths)
    return float(left.mean())
