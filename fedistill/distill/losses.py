"""Losses for targets that carry privacy noise.

Both keep the gradient linear in the target: noise of mean zero then leaves the expected gradient,
and so the minimiser, where they are without noise. Divergences with the target inside a logarithm
do not.
"""

from torch import Tensor


def soft_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over rows of w_i * -sum_k t_ik log softmax(z_i)_k.

    Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2, at
    temperature 1. `target` need not be a distribution: noised entries may be negative or sum to
    something other than 1, and the loss stays unbiased.

    Args:
        logits: (batch, num_classes), of the student.
        target: (batch, num_classes), an unbiased estimate of the teacher's probabilities.
        weights: (batch,), non-negative.
    """
    return -(weights * (target * logits.log_softmax(dim=1)).sum(dim=1)).mean()


def log_odds_error(student: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over all entries of w_ik (s_ik - t_ik)^2, student against target log-odds.

    Matching logits by squared error: Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?",
    section 2.2, on standardised targets. With w = 1 / (1 + std^2) for targets of unit variance
    whose noise has deviation std, it is the weighted least squares of Gaussian noise.

    Args:
        student: (batch, num_classes - 1), log-odds against class 0.
        target: The same shape: standardised, or of the student's own scale.
        weights: The same shape, non-negative.
    """
    return (weights * (student - target).square()).mean()
