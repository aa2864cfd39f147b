"""For each mechanism two neighbouring data sets that its release can hardly hide from each other.

A further mechanism needs one more entry in `WORST_CASES`: all tests of this folder take it up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.labels import LabelRelease
from fedistill.mechanisms import (
    Plan,
    boosting_machines,
    clipped,
    dp_ebm,
    dp_probe,
    mechanism_named,
    shard_answers,
    votes,
)
from fedistill.privacy.grid import to_grid
from tests.mechanisms.toy import ask, make_proxy, make_rows, without_rows

ONE_COLUMN = ("a",)

SECRET = 1e6
"""A value that one record has in its first column, and no other row."""


class Tells:
    """A teacher as bad as can be: sure of class 1 if it saw the record, of class 0 if not."""

    certainty = 1.0

    def fit(self, features, labels):
        self.saw = bool((features == SECRET).any())
        return self

    def predict_proba(self, features):
        answer = np.zeros((len(features), 2))
        answer[:, int(self.saw)] = self.certainty if self.saw else 1.0
        return answer


class Shouts(Tells):
    """It answers what is no probability, once it saw the record."""

    certainty = 3.0


def one_layer(inputs: int, classes: int) -> torch.nn.Module:
    """A network whose gradient for a record is an outer product, of any length."""
    return torch.nn.Linear(inputs, classes, bias=False)


_named = cache(mechanism_named)


SMALL_PROXY = make_proxy(24)
"""Small, so that a release takes a few milliseconds."""


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """Neighbouring data sets, and a mechanism asked such that they lie as far apart as may be.

    Attributes:
        mechanism: Its name.
        present: The data set with the record (for a site's guarantee: the site).
        absent: The data set without it.
        asked: Fields of the question that differ from the toy's.
        forget_clip: Makes a twin that does not bound what a record adds; None where no clip binds
            in the first vector, so that a twin would not be noticed for sure.
        provoked: Fields of the question that tempt that twin.
        sharpness: Share of the claimed rho that the two data sets use at least.
        rounding: Relative error of rho, of the floats that it is computed from.
        codes_keep: Share of the claimed mu that codes and parameters show at least.
        proxy: What is labelled.
        epsilon: Of the tests in which it does not matter.
        resize: Makes the mechanism's public constants smaller.
    """

    mechanism: str
    present: LabelledRows
    absent: LabelledRows
    asked: Mapping[str, object]
    forget_clip: Callable[[pytest.MonkeyPatch], None] | None = None
    provoked: Mapping[str, object] = field(default_factory=dict)
    sharpness: float = 0.99
    rounding: float = 1e-9
    codes_keep: float = 0.75
    proxy: ProxySet = SMALL_PROXY
    epsilon: float = 1.0
    resize: Callable[[pytest.MonkeyPatch], None] = lambda patch: None

    def plan(self, epsilon: float, **changes: object) -> Plan:
        """A plan of that epsilon at the toy's delta."""
        question = ask(self.proxy, self.mechanism, epsilon=epsilon, **{**self.asked, **changes})
        with pytest.MonkeyPatch.context() as patch:
            self.resize(patch)
            return _named(self.mechanism).plan(question, self.proxy, rows_at_least=1)

    def release(self, rows: LabelledRows, plan: Plan) -> LabelRelease:
        """The real mechanism's release."""
        with pytest.MonkeyPatch.context() as patch:
            self.resize(patch)
            return _named(self.mechanism).release(rows, self.proxy, plan)[0]


def secret_and_others(
    num_classes: int = 2, num_others: int = 9
) -> tuple[LabelledRows, LabelledRows]:
    """A few rows with one more of a value and a label of its own, and without it."""
    others = make_rows(num_others, num_classes)
    record = np.array([[SECRET, 0.0, 0.0, 0.0]], np.float32)
    present = replace(
        others,
        rows=np.concatenate([others.rows, record]),
        labels=np.append(others.labels, num_classes - 1),
    )
    return present, others


def one_bin() -> tuple[LabelledRows, LabelledRows]:
    """Equal rows of class 0 with one of class 1, and without it.

    So many that InterpretML makes one bin: noise fills another only 8 spreads above its mean.
    """
    labels = np.zeros(4_500, np.int64)
    labels[-1] = 1
    rows = np.full((len(labels), 1), 0.5, np.float32)
    present = LabelledRows(columns=ONE_COLUMN, rows=rows, labels=labels, num_classes=2)
    return present, present.take(np.arange(len(labels) - 1))


def few_large_steps(patch: pytest.MonkeyPatch) -> None:
    """A boosting machine that is soon sure of class 0, so that a record of class 1 has a residual
    of almost 1; 10 steps rather than 300.
    """
    for module in (boosting_machines, dp_ebm):
        patch.setattr(module, "ROUNDS", 10)
    patch.setattr(boosting_machines, "LEARNING_RATE", 8.0)
    # Its cache knows the number of rounds as a constant.
    patch.setattr(dp_ebm, "_given_epsilon", _given_epsilon)


_given_epsilon = cache(dp_ebm._given_epsilon.__wrapped__)


def _probe_forgets(patch: pytest.MonkeyPatch) -> None:
    clipping = dp_probe.clipped_residuals
    patch.setattr(
        dp_probe,
        "clipped_residuals",
        lambda *records, **bounds: clipping(*records, **bounds | {"clip": 2**31}),
    )


def _votes_forget(patch: pytest.MonkeyPatch) -> None:
    once = votes.count_votes
    patch.setattr(votes, "count_votes", lambda *votes_of, **units: 2 * once(*votes_of, **units))


def _sharded_forgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        shard_answers,
        "on_label_grid",
        lambda answer, shape: np.floor(answer * shard_answers.LARGEST_SUM).astype(np.int64),
    )


def _confident_forgets(patch: pytest.MonkeyPatch) -> None:
    _sharded_forgets(patch)
    patch.setattr(shard_answers, "votes", lambda integers: integers // shard_answers.LARGEST_SUM)


def _sgd_forgets(patch: pytest.MonkeyPatch) -> None:
    clip_and_accumulate = DPOptimizer.clip_and_accumulate

    def accumulate(optimizer: DPOptimizer) -> None:
        with pytest.MonkeyPatch.context() as unbounded:
            unbounded.setattr(optimizer, "max_grad_norm", np.inf)
            clip_and_accumulate(optimizer)

    patch.setattr(DPOptimizer, "clip_and_accumulate", accumulate)


def _clipped_forgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clipped, "clip_matrix", lambda log_odds, clip: to_grid(log_odds, clipped._STEP))


_TELLS, _SHOUTS = f"{__name__}:Tells", f"{__name__}:Shouts"
_PRESENT, _ABSENT = secret_and_others()
_PRESENT_OF_5, _ABSENT_OF_5 = secret_and_others(5)
# A teacher that saw one class alone is not asked; so many rows give both to each of two teachers.
_PRESENT_IN_A_SHARD, _ABSENT_IN_A_SHARD = secret_and_others(num_others=60)
# Many more than the noise in their count, which everything is divided by.
_PRESENT_AMONG_MANY, _ABSENT_AMONG_MANY = secret_and_others(5, num_others=300)
_PRESENT_IN_A_BIN, _ABSENT_IN_A_BIN = one_bin()

WORST_CASES = (
    WorstCase(
        mechanism="dp-probe",
        present=_PRESENT_OF_5,
        absent=_ABSENT_OF_5,
        # With five classes an unclipped residual is longer than the clip.
        asked={"num_classes": 5, "solver": "gradient", "probe_steps": 2},
        forget_clip=_probe_forgets,
        sharpness=0.6,  # the second step starts where the first one's noise has led
    ),
    WorstCase(
        mechanism="dp-probe",
        present=_PRESENT_OF_5,
        absent=_ABSENT_OF_5,
        asked={"num_classes": 5, "solver": "combined", "probe_steps": 2},
        sharpness=0.6,
    ),
    WorstCase(
        mechanism="dp-probe",
        present=_PRESENT_OF_5,
        absent=_ABSENT_OF_5,
        # No clip binds in its only round: nothing is longer than the bound.
        asked={"num_classes": 5, "solver": "moment", "probe_steps": 1},
    ),
    WorstCase(
        mechanism="corrections",
        present=_PRESENT_OF_5,
        absent=_ABSENT_OF_5,
        # Alone, as a federation of one; `test_summed_noise` has sums over sites.
        asked={"num_classes": 5, "rounds": 2},
        sharpness=0.6,
    ),
    WorstCase(
        mechanism="votes",
        present=_PRESENT,
        absent=_ABSENT,
        # Many partitions give a scale well above 1 at a large epsilon.
        asked={"partitions": 16, "cells": 1},
        forget_clip=_votes_forget,
    ),
    WorstCase(
        mechanism="sharded",
        present=_PRESENT,
        absent=_ABSENT,
        asked={"teacher": _TELLS, "shards": 1, "queries": 12},
        forget_clip=_sharded_forgets,
        provoked={"teacher": _SHOUTS},
    ),
    WorstCase(
        mechanism="sharded",
        present=_PRESENT_IN_A_SHARD,
        absent=_ABSENT_IN_A_SHARD,
        # The record makes two votes for a class one: in every row the check moves, and so do both
        # counts. About half of the rows pass, many more than are answered.
        asked={
            "answers": "confident",
            "teacher": _TELLS,
            "shards": 2,
            "confidence": 0.5,
            "queries": 24,
            "answers_at_most": 4,
        },
        forget_clip=_confident_forgets,
        provoked={"teacher": _SHOUTS},
        sharpness=0.8,  # rarely fewer rows pass
    ),
    WorstCase(
        mechanism="dp-sgd",
        present=_PRESENT_AMONG_MANY,
        absent=_ABSENT_AMONG_MANY,
        asked={
            "num_classes": 5,
            "teacher": f"{__name__}:one_layer",
            "sgd_steps": 2,
            "sgd_sampling_rate": 1.0,
            "sgd_clip": 1e-3,  # far below the length of a gradient
        },
        forget_clip=_sgd_forgets,
        rounding=1e-5,  # sums of float32: a record may move other records' last bits
    ),
    WorstCase(
        mechanism="dp-ebm",
        present=_PRESENT_IN_A_BIN,
        absent=_ABSENT_IN_A_BIN,
        asked={},
        sharpness=0.8,  # the first step's residual is 1/2
        codes_keep=0.55,  # the noise of the histogram divides each step, and does not show
        proxy=ProxySet(
            schema=numbers(ONE_COLUMN), rows=np.linspace(0, 1, 24, dtype=np.float32)[:, None]
        ),
        epsilon=10.0,  # less noise in the histogram, so that its empty bins hold less than one
        resize=few_large_steps,
    ),
    WorstCase(
        mechanism="clipped",
        present=_PRESENT,
        absent=_ABSENT,
        asked={"teacher": _TELLS, "clip_norm": 5.0},
        forget_clip=_clipped_forgets,
    ),
    WorstCase(
        mechanism="clipped-site",
        present=_PRESENT,
        absent=without_rows(),
        asked={"teacher": _TELLS, "clip_norm": 5.0},
        forget_clip=_clipped_forgets,
    ),
)


def _each(cases: Iterable[WorstCase]) -> pytest.MarkDecorator:
    names = [
        pytest.param(case, id=" ".join([case.mechanism, *map(str, filter(None, variant))]))
        for case in cases
        for variant in [(case.asked.get("solver"), case.asked.get("answers"))]
    ]
    return pytest.mark.parametrize("case", names)


every_mechanism = _each(WORST_CASES)
at_epsilon_1 = _each(case for case in WORST_CASES if case.epsilon == 1)
every_clip = _each(case for case in WORST_CASES if case.forget_clip)
