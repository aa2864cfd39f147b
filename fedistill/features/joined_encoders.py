"""Encoders side by side as one: each was trained from another seed, and sees other things.

What one network of the kind misses by the luck of its training, another has; a linear teacher on
all their embeddings errs less than on one's (of ensembles, Lakshminarayanan et al. 2017, "Simple
and Scalable Predictive Uncertainty Estimation using Deep Ensembles", section 2.4).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedistill.features.self_supervised import ImageEncoder


class JoinedEncoders(nn.Module):
    """Images (batch, channels, side, side) to embeddings of all encoders, of unit norm together."""

    def __init__(self, encoders: Sequence[ImageEncoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.shape = encoders[0].shape
        self.dimensions = sum(encoder.dimensions for encoder in encoders)

    def forward(self, images: Tensor) -> Tensor:
        """Images to (batch, dimensions)."""
        embeddings = [encoder(images) for encoder in self.encoders]
        joined: Tensor = torch.cat(embeddings, dim=1) / len(embeddings) ** 0.5
        return joined
