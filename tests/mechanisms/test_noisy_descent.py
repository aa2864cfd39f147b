"""Sampling, clipping and noise of Opacus as it is used here, each against its law."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import optimizer as opacus_optimizer
from scipy import stats

from fedistill.mechanisms import noisy_descent
from fedistill.mechanisms.noisy_descent import (
    Descent,
    drop_infinite,
    logits_of,
    poisson_sample,
    secret_generator,
    train,
)
from fedistill.mechanisms.private_networks import cnn

FALSE_ALARM = 1e-6
CLIP = 0.5


def descent(**changes: float) -> Descent:
    usual = {
        "steps": 1,
        "sampling_rate": 1.0,
        "clip": CLIP,
        "noise_multiplier": 2.0,
        "divisor": 10.0,
        "learning_rate": 1.0,
    }
    return Descent(**(usual | changes))  # type: ignore[arg-type]


def linear(num_inputs: int = 40) -> torch.nn.Module:
    layer = torch.nn.Linear(num_inputs, 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer


def rows_of(num_rows: int, num_inputs: int = 40, size: float = 1.0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(num_rows, num_inputs)) * size).astype(np.float32)
    return inputs, np.eye(2, dtype=np.float32)[rng.integers(0, 2, num_rows)]


@pytest.fixture
def noises(monkeypatch) -> Iterator[list[tuple[float, torch.Tensor]]]:
    """Spy on Opacus' sampler: scale asked for, noise made."""
    seen = []
    real = opacus_optimizer._generate_noise

    def spy(std, reference, generator=None, secure_mode=False):
        noise = real(std, reference, generator, secure_mode)
        seen.append((std, noise.clone()))
        return noise

    monkeypatch.setattr(opacus_optimizer, "_generate_noise", spy)
    return seen


def weights(network: torch.nn.Module) -> np.ndarray:
    return torch.cat([each.detach().flatten() for each in network.parameters()]).double().numpy()


def trained(rows: tuple[np.ndarray, ...], how: Descent, **rest) -> np.ndarray:
    network = linear(rows[0].shape[1])
    train(network, *rows, how, **({"generator": secret_generator()} | rest))
    return weights(network)


@pytest.mark.statistical
def test_the_noise_has_the_planned_scale(noises) -> None:
    """Two-sided chi-square test; false alarm 1e-6, power against half the noise above 1 - 1e-9
    with 4,100 samples. Noise without its factor, the clip, would be twice the scale.
    """
    trained(rows_of(20), descent(steps=50))
    scale = 2.0 * CLIP
    assert {std for std, _ in noises} == {scale}
    made = torch.cat([noise.flatten() for _, noise in noises]).double().numpy()

    def fits(samples: np.ndarray) -> bool:
        statistic = float(np.sum((samples / scale) ** 2))
        tails = stats.chi2.cdf(statistic, len(samples)), stats.chi2.sf(statistic, len(samples))
        return 2 * min(tails) > FALSE_ALARM

    assert len(made) == 50 * 82
    assert fits(made)
    assert not fits(made / 2)
    assert not fits(made * 2)
    assert stats.kstest(made / scale, "norm").pvalue > FALSE_ALARM


@pytest.mark.statistical
def test_what_moves_the_weights_is_the_noise_over_the_divisor(noises) -> None:
    """A step that sampled nobody is a step of pure noise."""
    moved = trained(rows_of(20), descent(), sample=lambda n, q: np.zeros(0, np.int64))
    noise = torch.cat([each.flatten() for _, each in noises]).double().numpy()
    np.testing.assert_allclose(moved, -noise / 10.0, rtol=1e-5, atol=1e-7)


def quiet_step(rows: tuple[np.ndarray, ...]) -> np.ndarray:
    """The sum of clipped gradients, by a step with next to no noise."""
    return -trained(rows, descent(noise_multiplier=1e-9, divisor=1.0))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6, 1e30])
def test_a_record_moves_the_sum_by_at_most_the_clip(size: float) -> None:
    """A forgotten clip is noticed: unclipped, gradients of size 1e6 move it by as much."""
    inputs, targets = rows_of(30, size=size)
    whole = quiet_step((inputs, targets))
    for row in range(0, 30, 7):
        rest = np.arange(30) != row
        apart = float(np.linalg.norm(whole - quiet_step((inputs[rest], targets[rest]))))
        assert apart <= CLIP * (1 + 1e-4)
    if 1 <= size <= 1e6:  # the norm of a larger one is infinite, and it contributes zero
        alone = float(np.linalg.norm(quiet_step((inputs[:1], targets[:1]))))
        assert alone > 0.99 * CLIP


def test_small_gradients_are_not_clipped() -> None:
    inputs, targets = rows_of(30, size=1e-3)
    by_hand = (0.5 - targets).T @ inputs
    np.testing.assert_allclose(quiet_step((inputs, targets))[:80].reshape(2, 40), by_hand, atol=0.5)
    bounded = quiet_step((inputs[:1] * 0, targets[:1]))
    # Only the bias has a gradient: (1/2, -1/2), norm 0.707, clipped to 1/2.
    assert np.linalg.norm(bounded) == pytest.approx(CLIP, rel=1e-3)


def test_batches_in_parts_give_the_same_sum(monkeypatch) -> None:
    rows = rows_of(30)
    whole = quiet_step(rows)
    monkeypatch.setattr(noisy_descent, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(quiet_step(rows), whole, atol=1e-5)


def test_parts_of_a_batch_are_noised_once(monkeypatch, noises) -> None:
    monkeypatch.setattr(noisy_descent, "ROWS_AT_ONCE", 7)
    trained(rows_of(30), descent(steps=3))
    assert len(noises) == 3 * 2


@pytest.mark.parametrize("make", [lambda: linear(64), lambda: cnn(64, 2)])
def test_an_empty_sample_is_a_noisy_step_like_any_other(noises, make) -> None:
    network = make()
    before = weights(network)
    how = descent(steps=4)
    train(network, *rows_of(0, 64), how, generator=secret_generator(), sample=poisson_sample)
    assert len(noises) == 4 * len(list(network.parameters()))
    assert (weights(network) != before).mean() > 0.99


def test_a_record_whose_gradient_is_not_finite_contributes_zero() -> None:
    inputs, targets = rows_of(30)
    wild = inputs.copy()
    wild[3], wild[4, 0] = np.nan, np.inf
    rest = ~np.isin(np.arange(30), [3, 4])
    np.testing.assert_allclose(
        quiet_step((wild, targets)), quiet_step((inputs[rest], targets[rest])), atol=1e-5
    )


def test_only_the_records_that_are_not_finite_are_dropped() -> None:
    one, other = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    one.grad_sample = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [3.0, 4.0]])
    other.grad_sample = torch.tensor([[5.0], [6.0], [torch.inf]])
    drop_infinite([one, other])
    assert one.grad_sample.tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]
    assert other.grad_sample.tolist() == [[5.0], [0.0], [0.0]]


class Fragile(torch.nn.Module):
    """Raises when a row is larger than it likes, before or after its layer has seen it."""

    def __init__(self, *, late: bool = False) -> None:
        super().__init__()
        self.inner = linear()
        self.late = late

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answer = self.inner(rows) if self.late else None
        if rows.max() > 100:
            raise RuntimeError("the patient is odd")
        return self.inner(rows) if answer is None else answer


def quiet_step_of(network: torch.nn.Module, rows: tuple[np.ndarray, ...]) -> np.ndarray:
    how = descent(noise_multiplier=1e-9, divisor=1.0)
    train(network, *rows, how, generator=secret_generator())
    return -weights(network)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at_once", [7, 1024])
@pytest.mark.parametrize("odd", [[0], [29], [3, 4, 17], list(range(30))])
def test_only_the_rows_on_which_a_network_fails_contribute_zero(
    monkeypatch, odd: list[int], at_once: int, late: bool
) -> None:
    """What the others add does not depend on it, whichever rows they are gone through with."""
    monkeypatch.setattr(noisy_descent, "ROWS_AT_ONCE", at_once)
    inputs, targets = rows_of(30)
    rest = ~np.isin(np.arange(30), odd)
    expected = quiet_step((inputs[rest], targets[rest]))
    inputs[odd, 0] = 1e3
    found = quiet_step_of(Fragile(late=late), (inputs, targets))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert rest.any() == (np.linalg.norm(found) > CLIP)


@pytest.mark.parametrize("late", [False, True])
def test_a_network_that_fails_on_a_row_still_takes_noisy_steps(noises, late: bool) -> None:
    inputs, targets = rows_of(30)
    inputs[0] = 1e3
    network = Fragile(late=late)
    train(network, inputs, targets, descent(steps=3), generator=secret_generator())
    assert len(noises) == 3 * 2
    assert np.isfinite(logits_of(network.inner, inputs)).all()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_rows_gradient_does_not_depend_on_the_rows_it_is_gone_through_with() -> None:
    """Beyond what floats round: the caveat of such mechanisms."""
    inputs, targets = (torch.from_numpy(each) for each in rows_of(30, 64))
    private = GradSampleModule(cnn(64, 2).train(), loss_reduction="sum")
    torch.nn.init.normal_(list(private.parameters())[-2], std=0.01)

    def gradients(rows: torch.Tensor) -> torch.Tensor:
        found = noisy_descent._samples(private, inputs[rows], targets[rows])
        return torch.cat([each.flatten(1) for each in found], dim=1)

    whole = gradients(torch.arange(30))
    assert (whole.norm(dim=1) > 1e-2).all()
    for part in torch.split(torch.randperm(30), 7):
        torch.testing.assert_close(gradients(part), whole[part], rtol=1e-4, atol=1e-6)


def test_dropout_draws_other_masks_in_each_training() -> None:
    """Masks of one public seed would tie a record's mask to the records before it."""
    found = []
    for _ in range(2):
        layers = torch.nn.Sequential(torch.nn.Dropout(0.5), linear())
        found.append(quiet_step_of(layers, rows_of(30)))
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.statistical
@pytest.mark.parametrize("rate", [0.01, 0.2, 0.9])
def test_rows_are_sampled_each_by_itself_at_the_public_rate(rate: float) -> None:
    """Sizes of 2,000 samples of 500 rows against the binomial law, and each row's own share.

    False alarm 1e-6 in each test; a rate that is off by 2% fails for 0.2 and above.
    """
    samples = [poisson_sample(500, rate) for _ in range(2_000)]
    sizes = np.array([len(sample) for sample in samples])
    by_row = np.bincount(np.concatenate(samples), minlength=500)

    def fits(at: float) -> bool:
        return stats.binomtest(int(sizes.sum()), 500 * 2_000, at).pvalue > FALSE_ALARM

    assert fits(rate)
    assert rate < 0.1 or not fits(rate * 1.02)
    spread = sizes.var(ddof=1) / (500 * rate * (1 - rate))
    assert abs(spread - 1) < 4.9 * np.sqrt(2 / 2_000) + 0.01
    chi = float(((by_row - 2_000 * rate) ** 2).sum() / (2_000 * rate * (1 - rate)))
    assert stats.chi2.sf(chi, 500) > FALSE_ALARM
    assert stats.chi2.cdf(chi, 500) > FALSE_ALARM
    # Rows that went together would make neighbours agree more often than by chance.
    taken = np.zeros((2_000, 500), bool)
    for each, sample in zip(taken, samples, strict=True):
        each[sample] = True
    both = int((taken[:, ::2] & taken[:, 1::2]).sum())
    assert stats.binomtest(both, 250 * 2_000, rate**2).pvalue > FALSE_ALARM


def test_a_rate_of_one_takes_every_row() -> None:
    np.testing.assert_array_equal(poisson_sample(5, 1.0), np.arange(5))
    assert len(poisson_sample(0, 0.5)) == 0
    assert len(poisson_sample(1_000, np.nextafter(1.0, 0.0))) == 1_000


def seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def test_seeds_reach_neither_sampling_nor_noise() -> None:
    """PRIVACY rule 14."""
    draws = []
    for _ in range(2):
        seed_everything()
        draws.append((poisson_sample(200, 0.5), torch.randn(200, generator=secret_generator())))
    assert not np.array_equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][1], draws[1][1])


def test_the_whole_state_of_the_generator_comes_from_the_operating_system(monkeypatch) -> None:
    """`manual_seed` uses 32 bits of its seed; here a single bit anywhere changes the noise."""
    asked = []
    last_bytes = iter((1, 2))

    def bits(size: int) -> bytes:
        asked.append(size)
        return bytes(size - 1) + bytes([next(last_bytes)])

    monkeypatch.setattr(noisy_descent.os, "urandom", bits)
    streams = [torch.randn(2_000, generator=secret_generator()) for _ in range(2)]
    assert asked == [2_496, 2_496]
    assert not torch.equal(*streams)
    same = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1 + 2**32)
    assert torch.equal(*(torch.randn(50, generator=each) for each in same))


@pytest.mark.statistical
def test_the_filled_generator_is_a_normal_one() -> None:
    """Kolmogorov-Smirnov; false alarm 1e-6, rejects a scale that is off by 3%."""
    draws = torch.randn(200_000, generator=secret_generator()).numpy()
    assert stats.kstest(draws, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(draws * 1.03, "norm").pvalue < FALSE_ALARM
