"""A site's part of FedAvg with DP-SGD, by Opacus."""

import math
import secrets
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.baselines.inputs import DELTA, Part
from benchmarks.baselines.settings import Setting

ROUNDS = 10


@lru_cache(maxsize=1024)
def noise_multiplier(epsilon: float, setting: Setting) -> float:
    """Noise standard deviation over clip norm, for all steps of all rounds."""
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log(0) where q = 1
        # The RDP bound only says how wide a range the PRV accountant looks at.
        warnings.filterwarnings("ignore", message="Optimal order is the largest alpha")
        multiplier: float = get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=DELTA,
            sample_rate=1 / setting.batches,
            steps=ROUNDS * setting.epochs * setting.batches,
            accountant="prv",
            epsilon_tolerance=1e-3 * epsilon,
        )
    return multiplier


def dp_sgd(model: nn.Module, part: Part, setting: Setting, noise: float) -> None:
    """Train `model` in place, where it is, for a round's epochs on a site's rows."""
    device = next(model.parameters()).device
    loader = DataLoader(
        _BatchedRows(torch.from_numpy(part.inputs), torch.from_numpy(part.labels)),
        batch_size=math.ceil(len(part.labels) / setting.batches),
        collate_fn=_as_is,
        generator=_secret_generator(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Secure RNG turned off")
        warnings.filterwarnings("ignore", message="Full backward hook")
        private, optimizer, loss, batches = PrivacyEngine().make_private(
            module=model,
            optimizer=_optimizer(model, setting),
            criterion=nn.CrossEntropyLoss(),
            data_loader=loader,
            noise_multiplier=noise,
            max_grad_norm=setting.clip,
            noise_generator=_secret_generator(device),
            grad_sample_mode="ghost",
        )
        for _ in range(setting.epochs):
            for rows, labels in batches:
                optimizer.zero_grad()
                loss(private(rows.to(device)), labels.to(device)).backward()
                optimizer.step()


class _BatchedRows(TensorDataset):
    """Hands out a whole batch at once."""

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, ...]:
        index = torch.as_tensor(indices, dtype=torch.long)
        return tuple(tensor[index] for tensor in self.tensors)


def _optimizer(model: nn.Module, setting: Setting) -> torch.optim.Optimizer:
    if setting.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=setting.rate)
    momentum = 0.9 if setting.optimizer == "momentum" else 0.0
    return torch.optim.SGD(model.parameters(), lr=setting.rate, momentum=momentum)


def _secret_generator(device: torch.device | None = None) -> torch.Generator:
    """Seeded by the operating system: no run repeats another's noise or batches."""
    return torch.Generator(device or "cpu").manual_seed(secrets.randbits(63))


def _as_is(batch: Any) -> Any:
    return batch
