"""A student that learns from the moving average of its own weights.

Tarvainen and Valpola 2017, "Mean teachers are better role models", section 2. The average answers
more steadily than the student, and its answers on unlabelled public rows are targets for free.
"""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fedistill.errors import ConfigError


def moving_average(model: nn.Module, *, decay: float = 0.99) -> AveragedModel:
    """A teacher whose weights are decay * teacher + (1 - decay) * model after each update.

    Buffers, such as the statistics of BatchNorm, are averaged too. `update_parameters(model)` after
    each optimizer step; the first update copies the model. `module` is the teacher.

    Args:
        model: Left as it is.
        decay: In [0, 1).

    Raises:
        ConfigError: `decay` is out of bounds.
    """
    if not 0 <= decay < 1:
        raise ConfigError(f"decay={decay} must be at least 0 and below 1: use 0 for no average")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
    return average


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
