"""Examples on the device, and the batches of an epoch that are drawn from them.

What is drawn in an epoch is a function of seed, stage, epoch and process alone, so a training that
goes on after a stop draws what it would have drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from fedistill.distill.augmentation import cutmix, mixup
from fedistill.distill.curriculum import (
    Pace,
    difficulty_by_entropy,
    difficulty_by_noise,
    easiest,
)
from fedistill.distill.guide import Guide
from fedistill.distill.layers import Tapped
from fedistill.distill.losses import NO_LABEL
from fedistill.distill.material import Material
from fedistill.distill.network_students import Scaled
from fedistill.distill.noise_aware import confidence_weights, rare_class_weights
from fedistill.distill.recipe_stages import StagePlan
from fedistill.distill.students import Student
from fedistill.distill.terms import Batch
from fedistill.distill.trainer import SMALLEST_SPREAD
from fedistill.features.affine import Affine, random_affine
from fedistill.labels import Floats

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Where a batch's randomness comes from.

    Attributes:
        seed: Of the training.
        stage: Counts from 0.
        epoch: Of the stage, from 0.
        process: Rank, and
        processes: how many there are: each takes its part of every batch.
    """

    seed: int
    stage: int
    epoch: int
    process: int = 0
    processes: int = 1

    def shared(self) -> torch.Generator:
        """The same in all processes: of the order."""
        return torch.Generator().manual_seed(self._number(0))

    def own(self) -> torch.Generator:
        """Of this process: of views."""
        return torch.Generator().manual_seed(self._number(1 + self.process))

    def mixing(self) -> np.random.Generator:
        """Of this process: of partners and shares."""
        return np.random.default_rng([self.seed, self.stage, self.epoch, self.process])

    def _number(self, kind: int) -> int:
        sequence = np.random.SeedSequence([self.seed, self.stage, self.epoch, kind])
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)


class Examples:
    """All examples on one device.

    Attributes:
        mean: (num_classes - 1,) of the target's log-odds.
        spread: Their deviation; 1 where a column does not vary.
    """

    def __init__(
        self,
        student: Student,
        material: Material,
        guide: Guide,
        *,
        views: Affine | None,
        sure_from: float,
        device: torch.device,
    ) -> None:
        target = material.target
        self._target, self._views, self._guide, self._device = target, views, guide, device
        self.mean: Floats = target.log_odds.mean(axis=0)
        spread = target.log_odds.std(axis=0)
        self.spread: Floats = np.where(spread > SMALLEST_SPREAD, spread, 1.0)
        self._encoding = student.encoding.to(device)
        self._rows = torch.from_numpy(np.array(material.rows))
        self._of_images = isinstance(student.encoding, Scaled) and (
            student.encoding.shape is not None
        )
        # Encoded images are as large as raw ones; encoded tables would be many times their size.
        self._images = self._encoded(self._rows) if self._of_images else None
        self._rows = self._rows.to(device)
        precision = 1 / (1 + (target.std / self.spread) ** 2)
        self._log_odds = self._floats((target.log_odds - self.mean) / self.spread)
        self._precision = self._floats(precision / precision.mean())
        likely = target.probabilities
        self._probabilities = self._floats(likely)
        labels = np.where(likely.max(axis=1) >= sure_from, likely.argmax(axis=1), NO_LABEL)
        self._labels = torch.from_numpy(labels).to(device)
        self._held = self._encoded(torch.from_numpy(np.array(material.held_rows)))
        held = np.concatenate([np.zeros((len(self._held), 1)), material.held_log_odds], axis=1)
        self._held_classes = torch.from_numpy(held.argmax(axis=1)).to(device)
        self._teacher: Tensor | None = None
        self._tapped: Tapped | None = None
        if guide.teacher is not None and guide.teacher.module is None:
            self._teacher = guide.teacher.answer(material.rows).to(device)
        elif guide.teacher is not None and guide.teacher.module is not None:
            self._tapped = Tapped(guide.teacher.module.to(device), guide.teacher_layers)

    def __len__(self) -> int:
        return len(self._rows)

    def weights(self, stage: StagePlan) -> Tensor:
        """How much each example counts in a stage, (num_examples,), of mean 1."""
        weights = np.ones(len(self))
        if stage.confidence:
            weights = weights * confidence_weights(self._target)
        if stage.rare_classes:
            likely = self._target.probabilities
            weights = weights * rare_class_weights(likely, beta=stage.rare_classes)
        return self._floats(weights / weights.mean())

    def in_use(self, stage: StagePlan, progress: float) -> Tensor:
        """Places of the examples that a curriculum has reached, (num_in_use,) int64."""
        if stage.curriculum is None:
            return torch.arange(len(self))
        by_noise = stage.curriculum.by == "noise"
        difficulty = (difficulty_by_noise if by_noise else difficulty_by_entropy)(self._target)
        pace = Pace(first_share=stage.curriculum.first_share, full_at=stage.curriculum.full_at)
        return torch.from_numpy(easiest(difficulty, pace.share(progress)))

    def batches(self, stage: StagePlan, draws: Draws, size: int) -> Iterator[Batch]:
        """Each batch of an epoch, this process's part of it; a last one that is short is left out.

        Args:
            stage: What an example counts, and how it is mixed.
            draws: Of the epoch.
            size: Examples of a batch over all processes.
        """
        weights = self.weights(stage)
        used = self.in_use(stage, draws.epoch / stage.epochs)
        order = used[torch.randperm(len(used), generator=draws.shared())]
        own, mixing = draws.own(), draws.mixing()
        for start in range(0, steps_of(len(used), size) * size, size):
            whole = order[start : start + size]
            chosen = whole[draws.process :: draws.processes].to(self._device)
            yield self._mixed(self._batch(chosen, weights, own), stage, mixing)

    def held(self) -> tuple[Tensor, Tensor]:
        """What the body takes of the rows that are held out, and the target's classes of them."""
        return self._held, self._held_classes

    def other_view(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The batch for a mean teacher: images moved another time, rows as they are."""
        if self._of_images and self._views is not None:
            return random_affine(batch.inputs, self._views, generator)
        return batch.inputs

    def close(self) -> None:
        """Leave student and teacher on the CPU."""
        self._encoding.cpu()
        if self._tapped is not None and self._guide.teacher and self._guide.teacher.module:
            self._tapped.close()
            self._guide.teacher.module.cpu()

    def _batch(self, chosen: Tensor, weights: Tensor, generator: torch.Generator) -> Batch:
        rows = self._rows[chosen]
        if self._images is None:
            with torch.no_grad():
                inputs = self._encoding(rows)
        else:
            inputs = self._images[chosen]
            if self._views is not None:
                inputs = random_affine(inputs, self._views, generator)
                rows = self._raw(inputs)
        batch = Batch(
            inputs=inputs,
            log_odds=self._log_odds[chosen],
            precision=self._precision[chosen],
            probabilities=self._probabilities[chosen],
            labels=self._labels[chosen],
            weights=weights[chosen],
            teacher=None if self._teacher is None else self._teacher[chosen],
        )
        return batch if self._tapped is None else self._taught(batch, rows, self._tapped)

    @torch.no_grad()
    def _taught(self, batch: Batch, rows: Tensor, tapped: Tapped) -> Batch:
        """The batch with what the white-box teacher says of what the student sees."""
        module: nn.Module = self._guide.teacher.module  # type: ignore[union-attr,assignment]
        return replace(batch, teacher=module(rows).float(), hints=tapped.taken())

    def _mixed(self, batch: Batch, stage: StagePlan, random: np.random.Generator) -> Batch:
        alpha = stage.mixup or stage.cutmix
        if not alpha:
            return batch
        width = batch.log_odds.shape[1]
        targets = torch.cat([batch.log_odds, batch.probabilities], dim=1)
        mixed = (mixup if stage.mixup else cutmix)(batch.inputs, targets, random, alpha=alpha)
        log_odds, likely = mixed.targets[:, :width], mixed.targets[:, width:]
        return replace(batch, inputs=mixed.images, log_odds=log_odds, probabilities=likely)

    def _raw(self, images: Tensor) -> Tensor:
        """Moved images as the rows that a public teacher takes."""
        encoding = cast(Scaled, self._encoding)
        return images.flatten(1) * encoding.std + encoding.mean

    @torch.no_grad()
    def _encoded(self, rows: Tensor) -> Tensor:
        starts = range(0, max(len(rows), 1), _ROWS_AT_ONCE)
        parts = (rows[start : start + _ROWS_AT_ONCE].to(self._device) for start in starts)
        return torch.cat([self._encoding(part) for part in parts])

    def _floats(self, values: Floats) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)


def steps_of(num_examples: int, size: int) -> int:
    """Whole batches of `size` among the examples, or one of all of them."""
    return max(1, num_examples // size)
