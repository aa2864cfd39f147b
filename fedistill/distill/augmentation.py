"""More examples from public rows: mixed images, patched images, jittered amounts.

`swap_columns` in the trainer is the one that tables use. Mixed targets are averages of targets, so
noise of mean zero stays so. Randomness is that of training and comes from a seeded generator; none
of it hides anything.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedistill.data import ProxySet
from fedistill.data.schema import Kind
from fedistill.distill.encoding import Rows
from fedistill.errors import ConfigError


@dataclass(frozen=True)
class MixedBatch:
    """A batch in which each image holds a part of another.

    Attributes:
        images: (batch, channels, height, width).
        targets: (batch, num_classes): share of its own target and the rest of its partner's.
        partner: (batch,) int64, the row that each was mixed with.
        share: How much of each image is its own, in [0, 1].
    """

    images: Tensor
    targets: Tensor
    partner: Tensor
    share: float


def mixup(
    images: Tensor, targets: Tensor, random: np.random.Generator, *, alpha: float = 0.2
) -> MixedBatch:
    """Images and targets averaged with those of a random partner.

    share ~ Beta(alpha, alpha), one for the batch. Zhang et al. 2018, "mixup: Beyond Empirical Risk
    Minimization", section 2.

    Args:
        images: (batch, channels, height, width) floating point; rows (batch, width) do as well.
        targets: (batch, num_classes), soft and possibly noised.
        random: Of training.
        alpha: Above 0; the smaller, the closer to one of the two images.

    Raises:
        ConfigError: `alpha` is out of bounds.
    """
    share, partner = _share(random, alpha), _partner(len(images), random).to(images.device)
    return MixedBatch(
        images=share * images + (1 - share) * images[partner],
        targets=share * targets + (1 - share) * targets[partner],
        partner=partner,
        share=share,
    )


def cutmix(
    images: Tensor, targets: Tensor, random: np.random.Generator, *, alpha: float = 1.0
) -> MixedBatch:
    """A rectangle of each image replaced by the same rectangle of a random partner.

    The rectangle covers 1 - share' of the image before it is cut at the border, share' ~
    Beta(alpha, alpha); targets are mixed by the share that was kept in fact. Yun et al. 2019,
    "CutMix: Regularization Strategy to Train Strong Classifiers", section 3.1.

    Args:
        images: (batch, channels, height, width).
        targets: (batch, num_classes), soft and possibly noised.
        random: Of training.
        alpha: Above 0; 1 makes every share equally likely.

    Raises:
        ConfigError: `alpha` is out of bounds.
    """
    side = np.sqrt(1 - _share(random, alpha))
    partner = _partner(len(images), random).to(images.device)
    height, width = images.shape[2:]
    rows, columns = _stretch(height, side, random), _stretch(width, side, random)
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[partner][:, :, rows, columns]
    covered = (rows.stop - rows.start) * (columns.stop - columns.start)
    share = 1 - covered / (height * width)
    return MixedBatch(
        images=mixed,
        targets=share * targets + (1 - share) * targets[partner],
        partner=partner,
        share=share,
    )


def amount_columns(proxy: ProxySet) -> tuple[int, ...]:
    """Columns whose numbers may be jittered: numbers with more than two values on the proxy rows.

    Flags, categories and dates are left alone: 5% more of them means something else or nothing.
    """
    return tuple(
        place
        for place, column in enumerate(proxy.schema)
        if column.kind is Kind.NUMBER and _num_values(proxy.rows[:, place]) > 2
    )


def jitter_amounts(
    rows: Rows, columns: tuple[int, ...], random: np.random.Generator, *, by: float = 0.05
) -> Rows:
    """Copies of the rows with every amount multiplied by its own factor, uniform in 1 +- `by`.

    Signs, zeros and missing values stay. Whoever labels the copies must be a function of raw rows.

    Args:
        rows: (num_rows, num_columns) raw.
        columns: Places of the amounts, such as `amount_columns` gives.
        random: Of training.
        by: In [0, 1).

    Raises:
        ConfigError: `by` is out of bounds.
    """
    if not 0 <= by < 1:
        raise ConfigError(f"by={by} must be at least 0 and below 1: lower it")
    copies = rows.copy()
    factors = random.uniform(1 - by, 1 + by, size=(len(rows), len(columns)))
    copies[:, list(columns)] *= factors.astype(np.float32)
    return copies


def _share(random: np.random.Generator, alpha: float) -> float:
    if not 0 < alpha < np.inf:
        raise ConfigError(f"alpha={alpha} must be above 0: leave the mixing out for none")
    return float(random.beta(alpha, alpha))


def _partner(batch: int, random: np.random.Generator) -> Tensor:
    return torch.from_numpy(random.permutation(batch))


def _stretch(length: int, share: float, random: np.random.Generator) -> slice:
    """Pixels of a stretch of `share` of the length around a random centre, cut at the border."""
    half, centre = int(length * share) // 2, int(random.integers(length))
    return slice(max(0, centre - half), min(length, centre + half))


def _num_values(column: Rows) -> int:
    return len(np.unique(column[~np.isnan(column)]))
