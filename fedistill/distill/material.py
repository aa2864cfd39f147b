"""What a recipe's loop draws from: proxy rows, copies of them, and what is said of both."""

import math
from dataclasses import dataclass

import numpy as np

from fedistill.data import ProxySet
from fedistill.distill.augmentation import amount_columns, jitter_amounts
from fedistill.distill.encoding import Rows
from fedistill.distill.noise_aware import propagate_labels
from fedistill.distill.recipes import RecipePlan
from fedistill.distill.target import Ensemble
from fedistill.distill.trainer import Augmentation, swap_columns
from fedistill.labels import EnsembleTarget, Floats

COPIES = Augmentation()


@dataclass(frozen=True, kw_only=True)
class Material:
    """Public rows and the ensemble's labels of them.

    Attributes:
        rows: (num_examples, num_columns), raw: proxy rows, then copies.
        target: Of the same rows; a copy's std is the typical one.
        held_rows: (num_held, num_columns), proxy rows that only decide.
        held_log_odds: (num_held, num_classes - 1), against class 0.
    """

    rows: Rows
    target: EnsembleTarget
    held_rows: Rows
    held_log_odds: Floats


def make_material(
    proxy: ProxySet,
    ensemble: Ensemble,
    plan: RecipePlan,
    *,
    copies: bool,
    seed: int,
    augmentation: Augmentation = COPIES,
) -> Material:
    """Proxy rows with the ensemble's labels, less those that are held out.

    Args:
        proxy: The public rows.
        ensemble: Labels any public row.
        plan: Its `validation`, `label_propagation` and `jitter` count here.
        copies: Whether column-swapped copies are added, as the ensemble labels them.
        seed: Of the copies and of which rows are held out.
        augmentation: Settings of the copies.
    """
    random = np.random.default_rng(seed)
    log_odds, std = ensemble.target.log_odds, ensemble.target.std
    if plan.label_propagation:
        log_odds = propagate_labels(ensemble.basis.values, log_odds)
    order = random.permutation(len(proxy.rows)) if plan.validation else np.arange(len(proxy.rows))
    held = np.sort(order[: min(len(order) - 1, math.ceil(plan.validation * len(order)))])
    kept = np.sort(order[len(held) :])
    rows, labels, deviations = proxy.rows[kept], log_odds[kept], std[kept]
    if copies:
        more = swap_columns(rows, augmentation, random)
        if plan.jitter:
            more = jitter_amounts(more, amount_columns(proxy), random, by=plan.jitter)
        typical = np.broadcast_to(deviations.mean(axis=0), (len(more), std.shape[1]))
        rows = np.concatenate([rows, more])
        labels = np.concatenate([labels, ensemble.label(more)])
        deviations = np.concatenate([deviations, typical])
    return Material(
        rows=rows,
        target=EnsembleTarget(log_odds=labels, std=deviations, num_sites=ensemble.target.num_sites),
        held_rows=proxy.rows[held],
        held_log_odds=log_odds[held],
    )
