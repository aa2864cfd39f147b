"""Matching hidden features and attention of a white-box teacher.

Only for a teacher whose inside may be seen: a public model on the server, or the uncompressed
student. The sites' teachers never qualify, as nothing but their noised answers leaves a site.

No gradient reaches the teacher.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedistill.errors import ConfigError

DEPTHS = "shallow", "middle", "deep"
"""Names of the depths at which features are usually matched."""


class FeatureMatching(nn.Module):
    """Squared error between the teacher's features and adapted features of the student.

    Mean over depths, rows and entries of (teacher - adapter(student))^2. The adapters are learned
    with the student and thrown away after training. Romero et al. 2015, "FitNets: Hints for Thin
    Deep Nets", section 2.2, equation 3, but for the mean in place of half the sum, and with the
    1 x 1 convolution that later work uses as regressor.

    Channels are a feature's second axis where it is an image, (batch, channels, height, width),
    and the last one otherwise: (batch, width) or (batch, length, width). Where two images differ
    in size, the larger is averaged down to the smaller.
    """

    def __init__(self, shapes: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> None:
        """Adapters for each depth.

        Args:
            shapes: By depth, the shapes of the student's and of the teacher's features, the batch
                included.

        Raises:
            ConfigError: No depth is named, or the shapes at one depth do not fit each other.
        """
        super().__init__()
        if not shapes:
            raise ConfigError(f"shapes={{}} must name a depth: give some of {', '.join(DEPTHS)}")
        self.adapters = nn.ModuleDict(
            {depth: _adapter(depth, *pair) for depth, pair in shapes.items()}
        )

    def forward(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            student: Features by depth, of the shapes that the adapters were made for.
            teacher: The same depths.
            mask: (batch, length) bool, true where there is a token: features (batch, length, width)
                of padding do not count. None: there is no padding.
        """
        errors = [
            _error(adapter(student[depth]), teacher[depth].detach(), mask)
            for depth, adapter in self.adapters.items()
        ]
        return torch.stack(errors).mean()


def spatial_attention(features: Tensor) -> Tensor:
    """Where a convolutional layer looks: sum over channels of A_c^2, of unit L2 norm.

    Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", section 3.1.

    Args:
        features: (batch, channels, height, width).

    Returns:
        (batch, height * width), non-negative; zero for a row whose features are all zero.
    """
    return functional.normalize(features.square().sum(dim=1).flatten(start_dim=1), dim=1)


def spatial_attention_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of |Q_student - Q_teacher|^2 with Q the `spatial_attention`; at most 2.

    Zagoruyko and Komodakis 2017, section 3.1, equation 2, with the square that makes it smooth.
    Channels need not agree; the larger image is averaged down to the smaller.

    Args:
        student: Features (batch, channels, height, width).
        teacher: Features (batch, other channels, other height, other width).
    """
    mine, theirs = _same_size(student, teacher.detach())
    return (spatial_attention(mine) - spatial_attention(theirs)).square().sum(dim=1).mean()


def spatial_attention_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of KL(teacher || student), the attention taken as shares of the image.

    The map of `spatial_attention`, of unit sum rather than norm: each place's share of the
    squared activations. A layer that is silent all over attends to every place alike.

    Args:
        student: Features (batch, channels, height, width).
        teacher: Features (batch, other channels, other height, other width).
    """
    mine, theirs = map(_attention_shares, _same_size(student, teacher.detach()))
    return functional.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def attention_score_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of a transformer's attention scores before their softmax.

    Mean over heads and over pairs of tokens that are not padding. Jiao et al. 2020, "TinyBERT:
    Distilling BERT for Natural Language Understanding", section 3.1.

    Args:
        student: (batch, num_heads, length, length), query by key.
        teacher: The same shape.
        mask: (batch, length) bool, true where there is a token.
    """
    valid = (mask[:, None, :, None] & mask[:, None, None, :]).expand_as(student)
    # Scores on padding may be minus infinity: they are left out, not multiplied by zero.
    return functional.mse_loss(student[valid], teacher.detach()[valid])


def attention_score_divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over heads and queries of KL(teacher || student) between attention distributions.

    Softmax over the keys that are tokens; queries that are padding do not count. Sun et al. 2020,
    "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices", "Attention Transfer".

    Args:
        student: Scores (batch, num_heads, length, length) before the softmax, query by key.
        teacher: The same shape.
        mask: (batch, length) bool, true where there is a token.
    """
    absent = ~mask[:, None, None, :]
    lowest = torch.finfo(student.dtype).min
    mine, theirs = (
        scores.masked_fill(absent, lowest).log_softmax(dim=3)
        for scores in (student, teacher.detach())
    )
    each = functional.kl_div(mine, theirs, reduction="none", log_target=True)
    queries = each.masked_fill(absent, 0.0).sum(dim=3)
    return queries[mask[:, None, :].expand_as(queries)].mean()


def _adapter(depth: str, student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    kind = len(student)
    if kind != len(teacher) or kind not in (2, 3, 4) or (kind == 3 and student[1] != teacher[1]):
        raise ConfigError(
            f"shapes[{depth!r}]={tuple(student)}, {tuple(teacher)} must both be (batch, width), "
            "(batch, length, width) of one length or (batch, channels, height, width): match "
            "layers of one kind"
        )
    if kind == 4:
        return nn.Conv2d(student[1], teacher[1], kernel_size=1)
    return nn.Linear(student[-1], teacher[-1])


def _error(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    if student.dim() == 4:
        student, teacher = _same_size(student, teacher)
    if student.dim() == 3 and mask is not None:
        student, teacher = student[mask], teacher[mask]
    return functional.mse_loss(student, teacher)


def _same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches of images, each averaged down to the smaller height and width."""
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return functional.adaptive_avg_pool2d(one, size), functional.adaptive_avg_pool2d(other, size)


def _attention_shares(features: Tensor) -> Tensor:
    """Logarithms of the shares of the squared activations, (batch, height * width)."""
    squares = features.square().sum(dim=1).flatten(start_dim=1)
    # The smallest normal number: a place without activation has a finite logarithm.
    return functional.normalize(squares + torch.finfo(squares.dtype).tiny, p=1, dim=1).log()
