"""A batch, what the student says of it, and the terms of a recipe's loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fedistill.distill.feature_losses import FeatureMatching, spatial_attention_error
from fedistill.distill.layers import Tapped
from fedistill.distill.loss_mix import LossMix, mixed_loss
from fedistill.distill.losses import (
    decoupled_divergence,
    divergence,
    hard_and_soft,
    log_odds_error,
    smoothed_labels,
    soft_cross_entropy,
)
from fedistill.distill.mean_teacher import consistency_error
from fedistill.distill.relation_losses import angle_error, distance_error
from fedistill.distill.students import log_odds
from fedistill.labels import Floats


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples of a step, on the device.

    Attributes:
        inputs: What the student's body takes, (batch, ...).
        log_odds: (batch, num_classes - 1), standardised.
        precision: The same shape: how much each entry counts.
        probabilities: (batch, num_classes), the target.
        labels: (batch,) int64, `NO_LABEL` where there is none.
        weights: (batch,), how much each row counts.
        teacher: (batch, num_classes), the white-box teacher's logits; NaN rows have none.
        hints: The teacher's features, by depth.
        own: (batch, num_classes), logits of the student's moving average.
    """

    inputs: Tensor
    log_odds: Tensor
    precision: Tensor
    probabilities: Tensor
    labels: Tensor
    weights: Tensor
    teacher: Tensor | None = None
    hints: Mapping[str, Tensor] = field(default_factory=dict)
    own: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Dials:
    """What a stage says of an epoch.

    Attributes:
        mix: Weights of the terms.
        temperature: Of terms that compare with a white-box teacher.
        alpha: Share of the soft part of `labels`.
        smoothing: Of the target of `cross_entropy`.
        images: Depths at which features are images.
        deepest: The depth that stands for a row as a whole; "" where none is seen.
    """

    mix: LossMix
    temperature: float = 1.0
    alpha: float = 1.0
    smoothing: float = 0.0
    images: tuple[str, ...] = ()
    deepest: str = ""


class Learner(nn.Module):
    """The student's body and the adapters that are learned with it, as one module.

    A process group synchronises gradients of what runs in one `forward` alone.
    """

    def __init__(
        self, body: nn.Module, layers: Mapping[str, str], matching: FeatureMatching | None
    ) -> None:
        super().__init__()
        self.body, self.matching = body, matching
        self._tapped = Tapped(body, layers)

    def forward(
        self, inputs: Tensor, hints: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Answers (batch, num_classes), features by depth, and their error if there are hints."""
        answers: Tensor = self.body(inputs)
        seen = self._tapped.taken()
        error = None if self.matching is None or not hints else self.matching(seen, hints)
        return answers, seen, error

    def close(self) -> None:
        """Leave the body as it was."""
        self._tapped.close()


class Scale(nn.Module):
    """Standardised answers to logits: the body learns log-odds of mean 0 and deviation 1.

    With the deviations s and means m of the target's columns, differences D and the centred lift
    C L that puts a zero before log-odds, the logits of z are C L (s D z + m).

    Attributes:
        mix: (num_classes, num_classes).
        shift: (num_classes,).
    """

    mix: Tensor
    shift: Tensor

    def __init__(self, mean: Floats, scale: Floats) -> None:
        super().__init__()
        classes = len(mean) + 1
        differences = np.eye(classes)[1:] - np.eye(classes)[:1]
        centred_lift = (np.eye(classes) - 1 / classes)[:, 1:]
        self.register_buffer("mix", torch.from_numpy(centred_lift * scale @ differences))
        self.register_buffer("shift", torch.from_numpy(centred_lift @ mean))

    def forward(self, answers: Tensor) -> Tensor:
        """Answers (batch, num_classes) to logits of the same shape."""
        return answers @ self.mix.to(answers.dtype).T + self.shift.to(answers.dtype)

    @torch.no_grad()
    def fold(self, last: nn.Linear) -> None:
        """Let the last layer do it from now on."""
        last.weight.copy_(self.mix @ last.weight.double())
        last.bias.copy_(self.mix @ last.bias.double() + self.shift)


def batch_loss(learner: nn.Module, scale: Scale, batch: Batch, dials: Dials) -> Tensor:
    """The weighted sum of the stage's terms, a scalar; terms of no weight are not computed."""
    mix = dials.mix
    inside = mix.features or mix.attention or mix.distances or mix.angles
    answers, seen, feature_error = learner(batch.inputs, batch.hints if mix.features else None)
    logits, weights = scale(answers), batch.weights
    terms: dict[str, Tensor | None] = {}
    if mix.log_odds:
        precision = batch.precision * weights[:, None]
        terms["log_odds"] = log_odds_error(log_odds(answers), batch.log_odds, precision)
    if mix.cross_entropy:
        target = smoothed_labels(batch.probabilities, dials.smoothing)
        terms["cross_entropy"] = soft_cross_entropy(logits, target, weights)
    if mix.consistency and batch.own is not None:
        terms["consistency"] = consistency_error(logits, batch.own, weights)
    if batch.teacher is not None:
        terms |= _compared(logits, batch, batch.teacher, dials)
    if inside:
        terms |= _inside(seen, batch.hints, feature_error, dials)
    return mixed_loss(mix, **terms)


def _compared(
    logits: Tensor, batch: Batch, exact: Tensor, dials: Dials
) -> dict[str, Tensor | None]:
    """Terms that compare with a white-box teacher's logits, on rows that it answered."""
    mix, temperature = dials.mix, dials.temperature
    answered = exact.isfinite().all(dim=1)
    weights = batch.weights * answered
    teacher = torch.where(answered[:, None], exact, 0.0)
    terms: dict[str, Tensor | None] = {}
    if mix.labels:
        terms["labels"] = hard_and_soft(
            logits, teacher, batch.labels, weights, alpha=dials.alpha, temperature=temperature
        )
    if mix.divergence:
        terms["divergence"] = divergence(logits, teacher, weights, temperature=temperature)
    if mix.decoupled:
        terms["decoupled"] = decoupled_divergence(
            logits, teacher, teacher.argmax(dim=1), weights, temperature=temperature
        )
    return terms


def _inside(
    seen: Mapping[str, Tensor],
    hints: Mapping[str, Tensor],
    feature_error: Tensor | None,
    dials: Dials,
) -> dict[str, Tensor | None]:
    """Terms that compare layers."""
    mix = dials.mix
    terms: dict[str, Tensor | None] = {"features": feature_error}
    if mix.attention:
        errors = [spatial_attention_error(seen[depth], hints[depth]) for depth in dials.images]
        terms["attention"] = torch.stack(errors).mean()
    if mix.distances or mix.angles:
        mine, theirs = seen[dials.deepest].flatten(1), hints[dials.deepest].flatten(1)
        terms["distances"] = distance_error(mine, theirs) if mix.distances else None
        terms["angles"] = angle_error(mine, theirs) if mix.angles else None
    return terms
