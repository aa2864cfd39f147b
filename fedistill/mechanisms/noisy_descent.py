"""Noisy gradient descent by Opacus: sample, clip, add noise, step; each is named here.

Every record takes part in a step with the same public chance, by bits of the operating system.
Opacus clips each record's gradient and adds the noise. It draws floating-point noise from a torch
generator, a Mersenne Twister whose `manual_seed` uses 32 bits only; so all 19,937 bits of its
state are filled from the operating system, for each training anew. It is no CSPRNG even so.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedistill.mechanisms.private_networks import Inputs

if TYPE_CHECKING:
    import torch

MOMENTUM = 0.9
ROWS_AT_ONCE = 1024
"""Bounds memory; a batch is gone through in parts of this many rows, then noised once."""

_STATE_WORDS = 624
_STATE_STARTS = 24


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How a network is trained; all of it public.

    Attributes:
        steps: Noisy steps; a step whose sample is empty is one too.
        sampling_rate: Chance of a record to take part in a step.
        clip: L2 bound of a record's gradient over all parameters.
        noise_multiplier: Standard deviation of the noise in each entry of a sum, over `clip`.
        divisor: What a noised sum is divided by: the expected number of records in a step.
        learning_rate: Of SGD with momentum 0.9, decayed linearly to zero.
    """

    steps: int
    sampling_rate: float
    clip: float
    noise_multiplier: float
    divisor: float
    learning_rate: float


Sampler = Callable[[int, float], npt.NDArray[np.int64]]


def poisson_sample(num_rows: int, rate: float) -> npt.NDArray[np.int64]:
    """Indices of the rows that take part, each by itself with chance `rate`.

    64 bits of the operating system decide on each row; rounding down costs at most 2^-64 of `rate`,
    and a lower chance is the stronger guarantee.
    """
    if rate >= 1:
        return np.arange(num_rows)
    draws = np.frombuffer(os.urandom(8 * num_rows), np.uint64)
    return np.flatnonzero(draws < np.uint64(int(rate * 2**64)))


def secret_generator() -> "torch.Generator":
    """A torch generator whose whole state comes from the operating system."""
    import torch

    generator = torch.Generator()
    state = generator.manual_seed(0).get_state().numpy().copy()
    words = state[_STATE_STARTS : _STATE_STARTS + 8 * _STATE_WORDS].view(np.uint64)
    words[:] = np.frombuffer(os.urandom(4 * _STATE_WORDS), np.uint32)
    generator.set_state(torch.from_numpy(state))
    return generator


def train(
    network: "torch.nn.Module",
    inputs: Inputs,
    targets: npt.NDArray[np.float32],
    descent: Descent,
    *,
    generator: "torch.Generator",
    sample: Sampler = poisson_sample,
) -> None:
    """Train `network` in place.

    Total: a record whose gradient is not finite contributes zero, and so does one on which the
    network fails; the others contribute what they would without it.

    Args:
        network: Maps (batch, num_inputs) to logits (batch, num_classes).
        inputs: (num_rows, num_inputs), finite.
        targets: (num_rows, num_classes) probabilities.
        descent: How.
        generator: Where the noise comes from.
        sample: Number of rows and chance to the indices of those that take part in a step.
    """
    import torch
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Hooks complain of inputs that need no gradient, which are all of ours.
        warnings.simplefilter("ignore")
        # A record's dropout mask depends on its place in a batch, hence on the other records: only
        # if masks are drawn anew is their law the same for a record that comes or goes.
        torch.manual_seed(int(torch.randint(2**32, (1,), generator=generator)))
        private = GradSampleModule(network.train(), loss_reduction="sum")
        plain = torch.optim.SGD(
            [each for each in network.parameters() if each.requires_grad],
            lr=descent.learning_rate,
            momentum=MOMENTUM,
        )
        optimizer = DPOptimizer(
            plain,
            noise_multiplier=descent.noise_multiplier,
            max_grad_norm=descent.clip,
            expected_batch_size=descent.divisor,
            loss_reduction="mean",
            generator=generator,
            # Four draws a number: the noise's grid and its bounded tails are harder to exploit.
            secure_mode=True,
        )
        decay = torch.optim.lr_scheduler.LinearLR(plain, 1.0, 0.0, descent.steps)
        rows, labels = torch.from_numpy(inputs), torch.from_numpy(targets)
        for _ in range(descent.steps):
            batch = torch.from_numpy(sample(len(rows), descent.sampling_rate))
            parts = torch.split(batch, ROWS_AT_ONCE)
            for number, part in enumerate(parts, 1):
                optimizer.signal_skip_step(number < len(parts))
                optimizer.zero_grad()
                _gradients(private, rows[part], labels[part])
                optimizer.step()
            decay.step()
        private.remove_hooks()


def logits_of(network: "torch.nn.Module", inputs: Inputs) -> npt.NDArray[np.float64]:
    """The network's answers, (num_rows, num_classes)."""
    import torch

    with torch.no_grad():
        parts = torch.split(torch.from_numpy(inputs), ROWS_AT_ONCE)
        answers = [network.eval()(part).double() for part in parts]
    return torch.cat(answers).numpy()


def _gradients(private: "torch.nn.Module", rows: "torch.Tensor", targets: "torch.Tensor") -> None:
    """Leave each record's gradient in `grad_sample` of every parameter."""
    parameters = list(_trained(private))
    for parameter, sample in zip(parameters, _samples(private, rows, targets), strict=True):
        parameter.grad_sample = sample  # type: ignore[attr-defined]
    drop_infinite(parameters)


def _samples(
    private: "torch.nn.Module", rows: "torch.Tensor", targets: "torch.Tensor"
) -> "list[torch.Tensor]":
    """Each record's gradient, (num_rows, *shape) for every parameter.

    Where the network fails, the rows are halved and each half is tried by itself, down to single
    rows: one that fails alone has a gradient of zero, and takes it from no other.
    """
    import torch

    parameters = list(_trained(private))
    _forget(private)
    try:
        if len(rows):
            loss = torch.nn.functional.cross_entropy(private(rows), targets, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
            return [_sample_of(each, len(rows)) for each in parameters]
    # A network may fail on some rows, and that it did must not be seen (PRIVACY rule 3).
    except Exception:
        _forget(private)
        if len(rows) > 1:
            half = len(rows) // 2
            parts = [
                _samples(private, rows[part], targets[part])
                for part in (slice(half), slice(half, None))
            ]
            return [torch.cat(pair) for pair in zip(*parts, strict=True)]
    return [each.new_zeros((len(rows), *each.shape)) for each in parameters]


def _sample_of(parameter: "torch.nn.Parameter", num_rows: int) -> "torch.Tensor":
    sample: torch.Tensor | None = parameter.grad_sample  # type: ignore[attr-defined]
    if sample is None or sample.shape != (num_rows, *parameter.shape):
        raise ValueError("a parameter took no part in the answer")
    return sample


def _forget(private: "torch.nn.Module") -> None:
    """Clear what a pass that failed halfway left: Opacus would count it to the next one."""
    for module in private.modules():
        for name in ("activations", "max_batch_len"):
            if hasattr(module, name):
                delattr(module, name)
    for parameter in _trained(private):
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter._forward_counter = 0  # type: ignore[attr-defined]
        if hasattr(parameter, "_current_grad_sample"):
            del parameter._current_grad_sample


def drop_infinite(parameters: "list[torch.nn.Parameter]") -> None:
    """Set every gradient of a record to zero if one of its entries is not finite."""
    import torch

    samples: list[torch.Tensor] = [each.grad_sample for each in parameters]  # type: ignore[attr-defined]
    finite = torch.stack([each.flatten(1).isfinite().all(dim=1) for each in samples]).all(dim=0)
    if not finite.all():
        for each in samples:
            each[~finite] = 0.0


def _trained(network: "torch.nn.Module") -> "Iterator[torch.nn.Parameter]":
    return (each for each in network.parameters() if each.requires_grad)
