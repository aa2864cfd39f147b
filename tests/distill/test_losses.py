import numpy as np
import torch

from fedistill.distill.losses import log_odds_error, soft_cross_entropy

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(size=(50, 4))
WEIGHTS = RANDOM.random(50)


def gradient(target: np.ndarray) -> np.ndarray:
    logits = torch.tensor(LOGITS, requires_grad=True)
    soft_cross_entropy(logits, torch.tensor(target), torch.tensor(WEIGHTS)).backward()
    return logits.grad.numpy()


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
