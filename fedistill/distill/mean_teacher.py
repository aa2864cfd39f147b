"""A student that learns from the moving average of its own weights.

Tarvainen and Valpola 2017, "Mean teachers are better role models", section 2. The average answers
more steadily than the student, and its answers on unlabelled public rows are targets for free. The
average itself is `fedistill.distill.averaging.Average`.
"""

from torch import Tensor


def consistency_error(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Mean over rows of w_i |softmax(student_i) - softmax(teacher_i)|^2 / num_classes.

    Tarvainen and Valpola 2017, section 2, with the mean squared error that their section 3 takes.

    Args:
        student: Logits (batch, num_classes), of one augmentation of the rows.
        teacher: Logits (batch, num_classes) of the moving average, of another augmentation; no
            gradient reaches them.
        weights: (batch,), non-negative; small at first, while the teacher knows nothing.
    """
    gap = student.softmax(dim=1) - teacher.detach().softmax(dim=1)
    return (weights * gap.square().mean(dim=1)).mean()
