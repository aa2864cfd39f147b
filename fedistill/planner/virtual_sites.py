"""Virtual sites: public rows, resampled and labelled, in the place of private ones.

Everything here is a simulation over public rows, so its generators are seeded; privacy noise is
not made here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data import LabelledRows, ProxySet
from fedistill.data.table import Labels, Rows
from fedistill.features import Expansion
from fedistill.labels import Floats, probabilities
from fedistill.planner.public_rows import PublicRows

Labeller = Callable[[Rows], Floats]
"""Raw rows to class probabilities, (num_rows, num_classes)."""

HELD_OUT = 0.25
"""Share of the public rows that only score."""

MOST_PROXY_ROWS = 6_000
MOST_SCORED_ROWS = 3_000
SWAPPED = 0.1
"""Share of the values of a repeated row that come from other rows."""

_ACTIVE_COLUMNS = 8
_PRODUCTS = 4
_SIGNALS = (2.0, 3.5, 1.2)
"""Standard deviations of made-up log-odds, in nats: a usual task, an easy and a hard one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """One draw of what a federation might be.

    Attributes:
        proxy: Public rows to label.
        sites: Rows in the place of private ones.
        held_out: Labelled public rows that are in neither.
        truth: Class probabilities of these by whatever labelled the sites.
    """

    proxy: ProxySet
    sites: tuple[LabelledRows, ...]
    held_out: LabelledRows
    truth: Floats


def draw_world(public: PublicRows, *, draw: int, num_sites: int, num_rows: int) -> World:
    """Split the public rows, find or make up labels, and fill the sites.

    Args:
        public: All public rows.
        draw: Number of the draw; another one gives another split and other made-up labels.
        num_sites: How many virtual sites.
        num_rows: Rows of each.
    """
    random = np.random.default_rng(draw)
    rows, schema = public.rows.rows, public.rows.schema
    order = _spread_over_classes(random.permutation(len(rows)), public)
    apart = order[:: round(1 / HELD_OUT)]
    kept = random.permutation(np.setdiff1d(order, apart))
    held = random.permutation(apart)[:MOST_SCORED_ROWS]
    labeller = _labeller(public, kept, draw)
    sampled = resample(rows[kept], num_sites * num_rows, random)
    labels = draw_labels(labeller(sampled), random)
    truth = labeller(rows[held])
    held_labels = draw_labels(truth, random) if public.labels is None else public.labels[held]
    proxy = ProxySet(schema=schema, rows=rows[kept[:MOST_PROXY_ROWS]])
    return World(
        proxy=proxy,
        sites=tuple(
            _labelled(proxy, sampled[site::num_sites], labels[site::num_sites], public.num_classes)
            for site in range(num_sites)
        ),
        held_out=_labelled(proxy, rows[held], held_labels, public.num_classes),
        truth=truth,
    )


def resample(rows: Rows, num_rows: int, random: np.random.Generator) -> Rows:
    """So many rows like these: different ones while there are enough, else varied copies.

    A copy takes `SWAPPED` of its values from other rows, column by column.
    """
    if num_rows <= len(rows):
        return rows[random.permutation(len(rows))[:num_rows]]
    copies = rows[random.integers(len(rows), size=num_rows)]
    others = random.integers(len(rows), size=copies.shape)
    swapped = random.random(copies.shape) < SWAPPED
    varied: Rows = np.where(swapped, rows[others, np.arange(rows.shape[1])], copies)
    return varied


def draw_labels(shares: Floats, random: np.random.Generator) -> Labels:
    """A label for each row by its class probabilities (num_rows, num_classes)."""
    above = shares.cumsum(axis=1) < random.random((len(shares), 1))
    labels: Labels = np.minimum(above.sum(axis=1), shares.shape[1] - 1).astype(np.int64)
    return labels


def made_up_labeller(proxy: ProxySet, num_classes: int, draw: int) -> Labeller:
    """A random sparse function with steps, slopes, bends and products of a few columns.

    Columns count by rank among the public rows, missing values as the median, so that heavy tails
    and units of measurement do not decide. The strength of the signal changes with the draw.
    """
    random = np.random.default_rng((draw, num_classes))
    expansion = Expansion.of(proxy.schema)
    known = np.sort(expansion.transform(proxy.rows).astype(np.float64), axis=0)
    counts = (~np.isnan(known)).sum(axis=0)
    varying = [j for j, n in enumerate(counts) if n and np.ptp(known[:n, j]) > 0]
    chosen = random.permutation(varying)[:_ACTIVE_COLUMNS]
    shapes = random.integers(3, size=len(chosen))
    bends = random.uniform(-0.5, 0.5, len(chosen))
    pairs = random.integers(max(len(chosen), 1), size=(_PRODUCTS, 2))
    weights = random.normal(size=(len(chosen) + _PRODUCTS, num_classes))

    def effects(rows: Rows) -> Floats:
        values = expansion.transform(rows).astype(np.float64)
        ranks = np.zeros((len(rows), len(chosen)))
        for place, column in enumerate(chosen):
            sorted_values = known[: counts[column], column]
            low = np.searchsorted(sorted_values, values[:, column], "left")
            high = np.searchsorted(sorted_values, values[:, column], "right")
            rank = (low + high) / counts[column] - 1
            ranks[:, place] = np.where(np.isnan(values[:, column]), 0.0, rank)
        bent = np.select(
            [shapes == 0, shapes == 1], [ranks, np.sign(ranks - bends)], np.abs(ranks - bends) * 2
        )
        products = 2 * ranks[:, pairs[:, 0]] * ranks[:, pairs[:, 1]] if len(chosen) else 0.0
        return np.hstack([bent, np.zeros((len(rows), _PRODUCTS)) + products]) @ weights

    reference = effects(proxy.rows)
    centre = reference.mean(axis=0)
    scores = reference - centre
    spread = float((scores[:, 1:] - scores[:, :1]).std()) or 1.0
    factor = _SIGNALS[draw % len(_SIGNALS)] / spread

    def label(rows: Rows) -> Floats:
        logits = (effects(rows) - centre) * factor
        return probabilities(logits[:, 1:] - logits[:, :1])

    return label


def fitted_labeller(rows: ProxySet, labels: Labels, num_classes: int) -> Labeller:
    """Boosted trees fitted to public labels, calibrated by cross-validation."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier

    expansion = Expansion.of(rows.schema)
    trees = HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.08, max_leaf_nodes=8, l2_regularization=1.0, random_state=0
    )
    model = CalibratedClassifierCV(trees, method="sigmoid", cv=3, ensemble=False)
    model.fit(expansion.transform(rows.rows), labels)

    def label(some: Rows) -> Floats:
        answer = np.zeros((len(some), num_classes))
        answer[:, model.classes_] = model.predict_proba(expansion.transform(some))
        return answer

    return label


def _labeller(public: PublicRows, kept: npt.NDArray[np.int64], draw: int) -> Labeller:
    if public.labels is None:
        return made_up_labeller(public.rows, public.num_classes, draw)
    rows = ProxySet(schema=public.rows.schema, rows=public.rows.rows[kept])
    return fitted_labeller(rows, public.labels[kept], public.num_classes)


def _spread_over_classes(order: Labels, public: PublicRows) -> Labels:
    """The order with classes side by side, so that one row in four holds all classes."""
    if public.labels is None:
        return order
    return order[np.argsort(public.labels[order], kind="stable")]


def _labelled(proxy: ProxySet, rows: Rows, labels: Labels, num_classes: int) -> LabelledRows:
    return LabelledRows(columns=proxy.columns, rows=rows, labels=labels, num_classes=num_classes)
