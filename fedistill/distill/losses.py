"""Losses on soft labels.

The student's answer is the only thing inside a logarithm of `soft_cross_entropy`, and
`log_odds_error` is a square: the gradient of both is linear in the target. Noise of mean zero then
leaves the expected gradient, and so the minimiser, where they are without noise.

The divergences are for teachers whose logits are exact: a public model, or the uncompressed
student. Softmax is not linear, so noised logits would bias them.

Losses with a temperature are multiplied by its square, whether or not hard labels stand beside
them: soft gradients shrink as 1 / temperature^2 (Hinton, Vinyals and Dean 2015, "Distilling the
Knowledge in a Neural Network", section 2), and a step size should not depend on it.
"""

import torch
from torch import Tensor
from torch.nn import functional

NO_LABEL = -1
"""Stands for the hard label of a row that has none."""


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


def smoothed_labels(target: Tensor, smoothing: float) -> Tensor:
    """Label smoothing: (1 - smoothing) t_ik + smoothing / num_classes, linear in the target.

    Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.

    Args:
        target: (batch, num_classes), one-hot or soft.
        smoothing: In [0, 1].
    """
    return (1 - smoothing) * target + smoothing / target.shape[1]


def divergence(student: Tensor, teacher: Tensor, weights: Tensor, *, temperature: float) -> Tensor:
    """Mean over rows of w_i T^2 KL(softmax(teacher_i / T) || softmax(student_i / T)), in nats.

    Hinton, Vinyals and Dean 2015, section 2.

    Args:
        student: Logits (batch, num_classes).
        teacher: Logits (batch, num_classes); no gradient reaches them.
        weights: (batch,), non-negative.
        temperature: T > 0; the higher, the more the small probabilities count.
    """
    return (weights * _row_divergence(student, teacher, temperature)).mean()


def hard_and_soft(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    alpha: float,
    temperature: float,
) -> Tensor:
    """Cross-entropy with hard labels mixed with `divergence` from the teacher.

    Mean over rows of w_i ((1 - alpha) CE_i + alpha T^2 KL_i). A row without a label is
    w_i T^2 KL_i, at full weight, as its teacher is all there is to learn from.
    Hinton, Vinyals and Dean 2015, section 2.

    Args:
        student: Logits (batch, num_classes).
        teacher: Logits (batch, num_classes); no gradient reaches them.
        labels: (batch,) int64, public; `NO_LABEL` where there is none.
        weights: (batch,), non-negative.
        alpha: Share of the soft part on labelled rows, in [0, 1].
        temperature: T > 0.
    """
    soft = _row_divergence(student, teacher, temperature)
    hard = functional.cross_entropy(student, labels, ignore_index=NO_LABEL, reduction="none")
    mixed = torch.where(labels == NO_LABEL, soft, (1 - alpha) * hard + alpha * soft)
    return (weights * mixed).mean()


def decoupled_divergence(
    student: Tensor,
    teacher: Tensor,
    target_class: Tensor,
    weights: Tensor,
    *,
    alpha: float = 1.0,
    beta: float | Tensor = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation: mean over rows of w_i T^2 (alpha TCKD_i + beta NCKD_i).

    TCKD is the divergence between target class and all others as two outcomes; NCKD is the
    divergence among the others, given that it is one of them. The plain divergence is
    TCKD + (1 - p_target of the teacher) NCKD, so beta = 1 - p_target gives it back. Between two
    classes NCKD is zero. Zhao et al. 2022, "Decoupled Knowledge Distillation", section 3.

    Args:
        student: Logits (batch, num_classes).
        teacher: Logits (batch, num_classes); no gradient reaches them.
        target_class: (batch,) int64: the label, or the teacher's most probable class.
        weights: (batch,), non-negative.
        alpha: Weight of TCKD.
        beta: Weight of NCKD, a number or (batch,).
        temperature: T > 0.
    """
    mine, theirs = student / temperature, teacher.detach() / temperature
    between = _divergence_of(
        _one_against_rest(mine, target_class), _one_against_rest(theirs, target_class)
    )
    among = _divergence_of(_rest(mine, target_class), _rest(theirs, target_class))
    return (weights * temperature**2 * (alpha * between + beta * among)).mean()


def _row_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of each row, (batch,)."""
    theirs = (teacher.detach() / temperature).log_softmax(dim=1)
    mine = (student / temperature).log_softmax(dim=1)
    return temperature**2 * _divergence_of(mine, theirs)


def _divergence_of(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of each row of log-probabilities, (batch,)."""
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def _one_against_rest(logits: Tensor, target_class: Tensor) -> Tensor:
    """Log-probabilities of the target class and of all others together, (batch, 2)."""
    target = logits.gather(1, target_class[:, None])
    others = _others(logits, target_class).logsumexp(dim=1, keepdim=True)
    return torch.cat([target, others], dim=1).log_softmax(dim=1)


def _rest(logits: Tensor, target_class: Tensor) -> Tensor:
    """Log-probabilities among the other classes, (batch, num_classes - 1)."""
    return _others(logits, target_class).log_softmax(dim=1)


def _others(logits: Tensor, target_class: Tensor) -> Tensor:
    """Logits of all classes but the target, (batch, num_classes - 1)."""
    batch, num_classes = logits.shape
    is_other = torch.arange(num_classes, device=logits.device) != target_class[:, None]
    return logits[is_other].view(batch, num_classes - 1)
