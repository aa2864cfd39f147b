"""Students: what the coordinator hands back."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedistill.distill.encoding import Rows, TabularEncoding
from fedistill.errors import ConfigError

HIDDEN = (64, 64)
ROWS_AT_ONCE = 8192


class TabularStudent(nn.Module):
    """An MLP on public codes of raw columns.

    `encoding` is fixed, `body` is Linear and ReLU in turn and is all that is trained, pruned or
    quantized. The student gives one logit per class rather than log-odds against class 0, so that
    pruning and quantization treat all classes alike; softmax removes the surplus degree of freedom.
    """

    def __init__(self, encoding: TabularEncoding, hidden: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.encoding = encoding
        layers: list[nn.Module] = []
        width = encoding.width
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.body = nn.Sequential(*layers, nn.Linear(width, num_classes))

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        """The Linear layers of the body, input to output."""
        return tuple(layer for layer in self.body if isinstance(layer, nn.Linear))

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(layer.out_features for layer in self.linears[:-1])

    @property
    def num_classes(self) -> int:
        """Classes, one logit each."""
        return self.linears[-1].out_features

    @property
    def num_parameters(self) -> int:
        """Trained numbers; the encoding's buffers are not counted."""
        return sum(parameter.numel() for parameter in self.body.parameters())

    def forward(self, rows: Tensor) -> Tensor:
        """Raw rows (batch, num_columns) float32 to logits (batch, num_classes)."""
        logits: Tensor = self.body(self.encoding(rows))
        return logits


def make_student(name: str, encoding: TabularEncoding, num_classes: int) -> TabularStudent:
    """A freshly initialised student.

    Raises:
        ConfigError: No student has this name.
    """
    match name:
        case "mlp":
            return TabularStudent(encoding, HIDDEN, num_classes)
        case _:
            raise ConfigError(f"student={name!r} must be 'mlp': name a student that exists")


def log_odds(logits: Tensor) -> Tensor:
    """Logits (batch, num_classes) to log-odds against class 0, (batch, num_classes - 1)."""
    return logits[:, 1:] - logits[:, :1]


@torch.inference_mode()
def predict_log_odds(student: TabularStudent, rows: Rows) -> npt.NDArray[np.float64]:
    """The student's log-odds against class 0 on raw rows, shape (num_rows, num_classes - 1)."""
    answers: npt.NDArray[np.float64] = log_odds(_logits(student, rows)).numpy()
    return answers


@torch.inference_mode()
def predict_probabilities(student: TabularStudent, rows: Rows) -> npt.NDArray[np.float64]:
    """The student's class probabilities on raw rows, shape (num_rows, num_classes)."""
    answers: npt.NDArray[np.float64] = _logits(student, rows).softmax(dim=1).numpy()
    return answers


def _logits(student: TabularStudent, rows: Rows) -> Tensor:
    starts = range(0, len(rows), ROWS_AT_ONCE)
    parts = [student(torch.tensor(rows[start : start + ROWS_AT_ONCE])) for start in starts]
    return torch.cat(parts).double()
