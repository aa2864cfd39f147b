"""Students: what the coordinator hands back."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedistill.distill.encoding import Rows, TabularEncoding

ROWS_AT_ONCE = 8192


class Student(nn.Module):
    """A network on public codes of raw columns.

    `encoding` is fixed, `body` is all that is trained, pruned or quantized. A student gives one
    logit per class rather than log-odds against class 0, so that pruning and quantization treat all
    classes alike; softmax removes the surplus degree of freedom.

    Attributes:
        name: As the run-config key `student` has it.
        num_columns: Raw columns of a row.
        num_classes: Classes, one logit each.
        encoding: Raw rows (batch, num_columns) float32, NaN for missing, to what `body` takes.
        body: Codes to logits (batch, num_classes).
    """

    encoding: nn.Module
    body: nn.Module

    def __init__(self, name: str, num_columns: int, num_classes: int) -> None:
        super().__init__()
        self.name = name
        self.num_columns = num_columns
        self.num_classes = num_classes

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits."""
        raise NotImplementedError

    @property
    def num_parameters(self) -> int:
        """Trained numbers; the encoding's buffers are not counted."""
        return sum(parameter.numel() for parameter in self.body.parameters())

    def forward(self, rows: Tensor) -> Tensor:
        """Raw rows (batch, num_columns) float32 to logits (batch, num_classes)."""
        logits: Tensor = self.body(self.encoding(rows))
        return logits


class TabularStudent(Student):
    """An MLP: Linear and ReLU in turn."""

    encoding: TabularEncoding
    body: nn.Sequential

    def __init__(self, encoding: TabularEncoding, hidden: Sequence[int], num_classes: int) -> None:
        super().__init__("mlp", encoding.num_columns, num_classes)
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
    def last(self) -> nn.Linear:
        """The layer that gives the logits."""
        return self.linears[-1]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(layer.out_features for layer in self.linears[:-1])


def log_odds(logits: Tensor) -> Tensor:
    """Logits (batch, num_classes) to log-odds against class 0, (batch, num_classes - 1)."""
    return logits[:, 1:] - logits[:, :1]


@torch.inference_mode()
def predict_log_odds(student: Student, rows: Rows) -> npt.NDArray[np.float64]:
    """The student's log-odds against class 0 on raw rows, shape (num_rows, num_classes - 1)."""
    answers: npt.NDArray[np.float64] = log_odds(_logits(student, rows)).numpy()
    return answers


@torch.inference_mode()
def predict_probabilities(student: Student, rows: Rows) -> npt.NDArray[np.float64]:
    """The student's class probabilities on raw rows, shape (num_rows, num_classes)."""
    answers: npt.NDArray[np.float64] = _logits(student, rows).softmax(dim=1).numpy()
    return answers


def _logits(student: Student, rows: Rows) -> Tensor:
    starts = range(0, len(rows), ROWS_AT_ONCE)
    parts = [student(torch.tensor(rows[start : start + ROWS_AT_ONCE])) for start in starts]
    return torch.cat(parts).double()
