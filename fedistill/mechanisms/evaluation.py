"""How a public student does on rows that a site held out: noised tables of hits and scores.

Adjacency: add or remove one unit. Unit: record, or group where the rows name units.

Release: tables of counts in steps of 1/G, in which every unit has one vote.

- Two classes: one table, true class by 12 bins of the probability of class 1. A bin's edge lies at
  1/2, so who is taken for whom follows from it.
- K classes: true class by predicted class, and for each class one table, whether a record is of the
  class by 12 bins of the class's probability: K + 1 tables.

The bins' edges are public; the server takes them from the student's answers on proxy rows.

Sensitivity: a record's cells depend on that record, the student and the edges alone: the student is
run on one record at a time and keeps nothing between two (`sent_student`, PRIVACY rule 8). A record
of a unit with r valid records adds floor(G / r) to one cell of each table, r being 1 without units.
So in each of T tables a unit adds non-negative integers that sum to at most G, and a vector's L2
norm is at most its L1 norm: the tables together move by at most sqrt(T) G in L2, T being 1 for two
classes and K + 1 beyond.

Which units are held out depends on each unit by itself (`site.holding_out`), so a unit that comes
or goes moves no other one. It is held out or learned from, never both; charging it for both
releases, as if it were in each, is more than it needs.

Output law: as `sum_vectors` has it, whether one site's counts are sent or those of many are summed:
divided counts plus independent discrete Gaussians of one scale. All figures are post-processing.

Noised histograms (Dwork, McSherry, Nissim and Smith 2006, "Calibrating Noise to Sensitivity in
Private Data Analysis", section 3); for ROC curves, Boyd, Lantz and Page 2015, "Differential Privacy
for Classifier Evaluation".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows
from fedistill.labels import Floats, LabelQuestion
from fedistill.mechanisms.summed import SumPlan, noised_vectors, opened_vectors, plan_vectors
from fedistill.mechanisms.unit_weights import row_bounds
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Adjacency, Unit

Integers = npt.NDArray[np.int64]
Answer = Callable[[npt.NDArray[np.float32]], Any]

VOTE = 2**16
"""G: what a unit adds to each table at most."""

SCORE_BINS = 12
"""More add up more noise; fewer lose more of the area, here about 0.003 (0.4 over their square)."""

UNITS: tuple[Unit, ...] = (Unit.RECORD, Unit.GROUP)
ADJACENCY = Adjacency.ADD_REMOVE


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """Noised counts of one site, or of many together, in votes.

    Attributes:
        confusion: (K, K) true class by predicted class.
        scores: (num_curves, 2, SCORE_BINS) records of other classes, then of the curve's own, by
            bins of its probability. One curve, that of class 1, for two classes, else K.
        confusion_std: Of the noise in each entry of `confusion`.
        score_std: The same for `scores`.
    """

    confusion: Floats
    scores: Floats
    confusion_std: Floats
    score_std: float


def num_curves(num_classes: int) -> int:
    """Classes whose scores are counted."""
    return 1 if num_classes == 2 else num_classes


def score_edges(shares: Floats) -> Floats:
    """Inner edges of the bins, (num_curves, SCORE_BINS - 1), from answers on public rows.

    A bin reaches up to and with its upper edge. Bins hold equally many public rows, but for an edge
    at 1/2 with two classes.

    Args:
        shares: (num_proxy, K) probabilities.
    """
    if shares.shape[1] > 2:
        quantiles = np.arange(1, SCORE_BINS) / SCORE_BINS
        edges: Floats = np.quantile(shares, quantiles, axis=0).T
        return edges
    quantiles = np.arange(1, SCORE_BINS - 1) / (SCORE_BINS - 1)
    inner = np.append(np.quantile(shares[:, 1], quantiles), 0.5)
    return np.sort(inner)[None, :]


def count_tables(rows: LabelledRows, answer: Answer, edges: Floats) -> Integers:
    """What is noised: votes by cell, (length,) in steps of 1/G; the confusion comes first.

    Total (PRIVACY rule 3): a record with an impossible label, or to which the student does not
    answer with probabilities of the classes, votes nowhere.

    Args:
        rows: Those held out.
        answer: One row (1, num_columns) to (1, K) probabilities; may raise.
        edges: As `score_edges` gives them.
    """
    classes = rows.num_classes
    shares = np.stack([np.zeros(classes), *(_shares(row, answer, classes) for row in rows.rows)])[
        1:
    ]
    valid = (rows.labels >= 0) & (rows.labels < classes) & (shares.sum(axis=1) > 0)
    votes = row_bounds(VOTE, rows.units, valid)[valid]
    labels, shares = rows.labels[valid], shares[valid]
    tables = []
    if classes > 2:
        tables.append(_table(labels * classes + shares.argmax(axis=1), votes, classes**2))
    for curve in range(len(edges)):
        of_class = curve if classes > 2 else 1
        bins = np.searchsorted(edges[curve], shares[:, of_class], side="left")
        tables.append(_table((labels == of_class) * SCORE_BINS + bins, votes, 2 * SCORE_BINS))
    return np.concatenate(tables)


def plan_evaluation(question: LabelQuestion, *, rows_at_least: int, num_sites: int) -> SumPlan:
    """Noise and cost of a site's tables in the sum over `num_sites`, 1 where it is not summed.

    Raises:
        PolicyRefusal: See `plan_vectors`.
    """
    classes = question.num_classes
    tables = 1 if classes == 2 else classes + 1
    entries = num_curves(classes) * 2 * SCORE_BINS + (classes**2 if classes > 2 else 0)
    rho = calibrate_rho(question.epsilon, question.delta, ADJACENCY)
    parts = [(entries, tables * VOTE**2, rho)]
    return plan_vectors(question, parts, rows_at_least=rows_at_least, num_sites=num_sites)


def noised_tables(rows: LabelledRows, answer: Answer, edges: Floats, plan: SumPlan) -> Integers:
    """What a site sends, (plan.length,) int64. Total; see `count_tables`."""
    return noised_vectors(plan, [count_tables(rows, answer, edges)])


def open_tables(total: Integers, edges: Floats, plan: SumPlan, *, num_sites: int) -> Tables:
    """The tables of what so many sites sent: post-processing.

    Raises:
        ValueError: As `opened_vectors`.
    """
    classes = plan.question.num_classes
    votes, std = opened_vectors(plan, total)[0] / VOTE, plan.vectors[0].std(num_sites) / VOTE
    scores = votes[len(votes) - len(edges) * 2 * SCORE_BINS :].reshape(-1, 2, SCORE_BINS)
    if classes > 2:
        confusion = votes[: classes**2].reshape(classes, classes)
        return Tables(
            confusion=confusion,
            scores=scores,
            confusion_std=np.full((classes, classes), std),
            score_std=std,
        )
    # Bins above the edge at 1/2 are those of rows taken for class 1.
    below = int(np.searchsorted(edges[0], 0.5, side="left")) + 1
    confusion = np.stack([scores[0, :, :below].sum(axis=1), scores[0, :, below:].sum(axis=1)], 1)
    spread = std * np.sqrt([below, SCORE_BINS - below])
    return Tables(
        confusion=confusion,
        scores=scores,
        confusion_std=np.tile(spread, (2, 1)),
        score_std=std,
    )


def _shares(row: npt.NDArray[np.float32], answer: Answer, num_classes: int) -> Floats:
    """The student's probabilities of one row; zeros where there are none."""
    try:
        shares = np.asarray(answer(row[None, :]), dtype=np.float64).reshape(num_classes)
    except Exception:
        return np.zeros(num_classes)  # whatever a row does to the student, it counts as nothing
    sound = bool(np.isfinite(shares).all()) and bool((shares >= 0).all())
    return shares if sound else np.zeros(num_classes)


def _table(cells: Integers, votes: Integers, size: int) -> Integers:
    table = np.zeros(size, np.int64)
    np.add.at(table, cells, votes)
    return table
