import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from torch.nn import functional

from fedistill.distill.losses import (
    NO_LABEL,
    decoupled_divergence,
    divergence,
    hard_and_soft,
    log_odds_error,
    smoothed_labels,
    soft_cross_entropy,
)

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(size=(50, 4))
TEACHER = 2 * RANDOM.normal(size=(50, 4))
WEIGHTS = RANDOM.random(50)
LABELS = RANDOM.integers(0, 4, 50)


def gradient(target: np.ndarray) -> np.ndarray:
    logits = torch.tensor(LOGITS, requires_grad=True)
    soft_cross_entropy(logits, torch.tensor(target), torch.tensor(WEIGHTS)).backward()
    return logits.grad.numpy()


def row_divergences(student: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
    """T^2 KL by SciPy, (batch,)."""
    pair = softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)
    return temperature**2 * rel_entr(*pair).sum(axis=1)


def differentiable() -> torch.Tensor:
    return torch.tensor(LOGITS[:5], requires_grad=True)


def test_soft_cross_entropy_is_the_weighted_mean_of_minus_t_log_q():
    target = RANDOM.dirichlet(np.ones(4), 50)
    total = 0.0
    for logits, entry, weight in zip(LOGITS, target, WEIGHTS, strict=True):
        log_partition = np.log(sum(np.exp(z) for z in logits))
        total -= weight * sum(t * (z - log_partition) for t, z in zip(entry, logits, strict=True))
    got = soft_cross_entropy(*map(torch.tensor, (LOGITS, target, WEIGHTS)))
    np.testing.assert_allclose(got.item(), total / 50, rtol=1e-12)


def test_soft_cross_entropy_takes_negative_targets_and_its_gradient_is_linear_in_them():
    clean = RANDOM.dirichlet(np.ones(4), 50)
    noise = RANDOM.normal(0, 2, size=(50, 4))
    average = (gradient(clean + noise) + gradient(clean - noise)) / 2
    np.testing.assert_allclose(average, gradient(clean), atol=1e-12)


def test_log_odds_error_is_the_weighted_mean_square():
    student, target, weights = RANDOM.normal(size=(3, 50, 2))
    expected = sum(
        weights[i, k] * (student[i, k] - target[i, k]) ** 2 for i in range(50) for k in range(2)
    )
    got = log_odds_error(*map(torch.tensor, (student, target, weights)))
    np.testing.assert_allclose(got.item(), expected / 100, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_give_the_cross_entropy_of_pytorchs_label_smoothing(smoothing):
    one_hot = functional.one_hot(torch.tensor(LABELS), 4).double()
    got = soft_cross_entropy(
        torch.tensor(LOGITS), smoothed_labels(one_hot, smoothing), torch.ones(50)
    )
    expected = functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(LABELS), label_smoothing=smoothing
    )
    torch.testing.assert_close(got, expected)


def test_smoothing_a_noised_target_keeps_its_mean_over_noise():
    clean, noise = torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(0))
    both = [smoothed_labels(clean + sign * noise, 0.3) for sign in (1, -1)]
    torch.testing.assert_close(sum(both) / 2, smoothed_labels(clean, 0.3))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_is_the_weighted_mean_of_kl_times_the_square_of_the_temperature(temperature):
    got = divergence(*map(torch.tensor, (LOGITS, TEACHER, WEIGHTS)), temperature=temperature)
    expected = (WEIGHTS * row_divergences(LOGITS, TEACHER, temperature)).mean()
    np.testing.assert_allclose(got.item(), expected, rtol=1e-10)


def test_at_high_temperature_the_gradient_is_that_of_centred_logits_whatever_the_temperature():
    # Hinton et al. 2015, equation 4, times the square: (z_i - v_i) / num_classes, both centred.
    logits = torch.tensor(LOGITS, requires_grad=True)
    divergence(
        logits, torch.tensor(TEACHER), torch.ones(50, dtype=torch.float64), temperature=1e4
    ).backward()
    centred = (LOGITS - LOGITS.mean(axis=1, keepdims=True)) - (
        TEACHER - TEACHER.mean(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(logits.grad.numpy() * 50, centred / 4, atol=2e-3)


@settings(deadline=None)
@given(shift=st.floats(-50, 50), temperature=st.floats(0.3, 20))
def test_divergence_is_zero_only_for_equal_distributions(shift, temperature):
    ones = torch.ones(50, dtype=torch.float64)
    same = divergence(
        torch.tensor(LOGITS + shift), torch.tensor(LOGITS), ones, temperature=temperature
    )
    other = divergence(torch.tensor(LOGITS), torch.tensor(TEACHER), ones, temperature=temperature)
    assert abs(same.item()) < 1e-8 < other.item()


def test_labelled_rows_mix_and_rows_without_a_label_count_by_their_divergence_in_full():
    labels = LABELS.copy()
    labels[::3] = NO_LABEL
    hard = -log_softmax(LOGITS, axis=1)[np.arange(50), LABELS]
    soft = row_divergences(LOGITS, TEACHER, 3.0)
    rows = np.where(labels == NO_LABEL, soft, 0.7 * hard + 0.3 * soft)
    got = hard_and_soft(
        *map(torch.tensor, (LOGITS, TEACHER, labels, WEIGHTS)), alpha=0.3, temperature=3.0
    )
    np.testing.assert_allclose(got.item(), (WEIGHTS * rows).mean(), rtol=1e-10)


def test_without_any_label_the_mix_keeps_the_square_of_the_temperature():
    arguments = torch.tensor(LOGITS), torch.tensor(TEACHER)
    weights = torch.tensor(WEIGHTS)
    none = torch.full((50,), NO_LABEL)
    mixed = hard_and_soft(*arguments, none, weights, alpha=0.1, temperature=5.0)
    torch.testing.assert_close(mixed, divergence(*arguments, weights, temperature=5.0))


def test_a_row_without_a_label_has_a_finite_gradient():
    labels = torch.tensor([NO_LABEL, 0, 1, NO_LABEL, 3])
    logits = differentiable()
    hard_and_soft(
        logits, torch.tensor(TEACHER[:5]), labels, torch.ones(5), alpha=0.5, temperature=2.0
    ).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_parts_at_their_coupled_weights_are_the_divergence(temperature):
    share = softmax(TEACHER / temperature, axis=1)[np.arange(50), LABELS]
    got = decoupled_divergence(
        *map(torch.tensor, (LOGITS, TEACHER, LABELS, WEIGHTS)),
        alpha=1.0,
        beta=torch.tensor(1 - share),
        temperature=temperature,
    )
    expected = divergence(*map(torch.tensor, (LOGITS, TEACHER, WEIGHTS)), temperature=temperature)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (2.0, 8.0)])
def test_each_decoupled_part_by_its_definition(alpha, beta):
    rows = []
    for student, teacher, label in zip(LOGITS / 4, TEACHER / 4, LABELS, strict=True):
        q, p = softmax(student), softmax(teacher)
        b, c = np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]])
        rest_p, rest_q = np.delete(p, label), np.delete(q, label)
        target = rel_entr(b, c).sum()
        others = rel_entr(rest_p / rest_p.sum(), rest_q / rest_q.sum()).sum()
        rows.append(16 * (alpha * target + beta * others))
    got = decoupled_divergence(
        *map(torch.tensor, (LOGITS, TEACHER, LABELS, WEIGHTS)), alpha=alpha, beta=beta
    )
    np.testing.assert_allclose(got.item(), (WEIGHTS * rows).mean(), rtol=1e-9)


def test_between_two_classes_there_is_nothing_to_decouple():
    two = torch.tensor(LOGITS[:, :2]), torch.tensor(TEACHER[:, :2])
    labels, weights = torch.tensor(LABELS % 2), torch.tensor(WEIGHTS)
    got = decoupled_divergence(*two, labels, weights, beta=100.0, temperature=2.0)
    torch.testing.assert_close(got, divergence(*two, weights, temperature=2.0))


def test_a_certain_teacher_leaves_the_decoupled_loss_finite():
    logits = differentiable()
    certain = torch.eye(5, 4, dtype=torch.float64) * 2000
    loss = decoupled_divergence(logits, certain, torch.tensor([0, 1, 2, 3, 0]), torch.ones(5))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, t, w: soft_cross_entropy(z, t, w),
        lambda z, t, w: divergence(z, t, w, temperature=3.0),
        lambda z, t, w: hard_and_soft(
            z, t, torch.tensor([0, NO_LABEL, 2, 3, 1]), w, alpha=0.3, temperature=2.0
        ),
        lambda z, t, w: decoupled_divergence(z, t, torch.tensor([0, 1, 2, 3, 0]), w),
    ],
    ids=["soft_cross_entropy", "divergence", "hard_and_soft", "decoupled_divergence"],
)
def test_gradients_are_those_of_finite_differences(loss):
    teacher, weights = torch.tensor(TEACHER[:5]), torch.tensor(WEIGHTS[:5])
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, weights), differentiable())


@pytest.mark.parametrize("loss", [divergence, decoupled_divergence, hard_and_soft])
def test_no_gradient_reaches_the_teacher(loss):
    teacher = torch.tensor(TEACHER[:5], requires_grad=True)
    labels = () if loss is divergence else (torch.tensor([0, 1, 2, 3, 0]),)
    mixed = {"alpha": 0.5} if loss is hard_and_soft else {}
    loss(differentiable(), teacher, *labels, torch.ones(5), temperature=2.0, **mixed).backward()
    assert teacher.grad is None
