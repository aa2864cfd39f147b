"""The moving average of a model's weights, as a list of tensors beside the model.

A list can be stored, put into the model for an answer, and taken out again, and all of it is
updated by one fused operation; a copy of the model (`torch.optim.swa_utils.AveragedModel`) would
take hooks and process group along.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedistill.errors import ConfigError


class Average:
    """decay * average + (1 - decay) * weights after each update; the first one copies.

    Buffers of floating point, such as the statistics of BatchNorm, are averaged too.

    Attributes:
        values: The average, in the order of the model's parameters and buffers.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            model: Stays where it is for as long as its average is taken.
            decay: In [0, 1).

        Raises:
            ConfigError: `decay` is out of bounds.
        """
        if not 0 <= decay < 1:
            raise ConfigError(f"decay={decay} must be at least 0 and below 1: use 0 for no average")
        self._decay = decay
        self.begun = False
        # Listed once: walking through the modules takes longer than a step's average.
        buffers = (each for each in model.buffers() if each.is_floating_point())
        self._own = [*(each.detach() for each in model.parameters()), *buffers]
        self.values = self.snapshot()

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        decay = self._decay if self.begun else 0.0
        self.begun = True
        torch._foreach_lerp_(self.values, self._own, 1 - decay)

    @torch.no_grad()
    def write(self, values: Sequence[Tensor]) -> None:
        """Put values into the model."""
        torch._foreach_copy_(self._own, list(values))

    def snapshot(self) -> list[Tensor]:
        """The model's own weights, copied."""
        return [each.clone() for each in self._own]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the average as its weights, for as long as this lasts."""
        own = self.snapshot()
        self.write(self.values)
        try:
            yield
        finally:
            self.write(own)
