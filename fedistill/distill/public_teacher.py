"""The white-box teacher that is lawful besides the student itself: a public model on the server.

It answers raw public rows, as a shipped student does: (batch, num_columns) float32, NaN for
missing, to logits. Of an import path the layers can be seen too. An ONNX file gives logits, or
`probabilities`, whose logarithms are taken. A safetensors file holds `logits` of the proxy rows
themselves, (num_proxy, num_classes): it says nothing about other rows.

Whoever names a teacher answers for its being public. It must have seen none of the sites' rows, or
the run's guarantee would not cover it, and none of the test rows, or the score would flatter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedistill.data import ProxySet
from fedistill.distill.encoding import Rows
from fedistill.errors import ConfigError

_ROWS_AT_ONCE = 1024
_SMALLEST = 1e-30
_CHECKED = 8


@dataclass(frozen=True)
class PublicTeacher:
    """Logits of raw rows, and the layers behind them where they can be seen.

    Attributes:
        name: As the key `public-teacher` has it.
        answer: Raw rows (n, num_columns) to logits (n, num_classes) float32, NaN where it has none.
        module: What gives the logits, in evaluation mode; None where its inside is hidden.
    """

    name: str
    answer: Callable[[Rows], Tensor]
    module: nn.Module | None = None


def public_teacher(name: str, proxy: ProxySet, num_classes: int) -> PublicTeacher:
    """The teacher that `public-teacher` names, tried on proxy rows.

    Args:
        name: An import path `package.module:factory`, whose factory takes the numbers of columns
            and of classes and returns a trained `torch.nn.Module`, or the full path of an ONNX or
            safetensors file.
        proxy: The rows that it must be able to answer.
        num_classes: Of the task.

    Raises:
        ConfigError: It cannot be had, or does not answer with a finite logit a class.
    """
    if name.lower().endswith(".safetensors"):
        return _table(name, proxy, num_classes)
    if name.lower().endswith(".onnx"):
        teacher = PublicTeacher(name, _session(name))
    else:
        module = _module(name, len(proxy.columns), num_classes)
        teacher = PublicTeacher(name, lambda rows: _by_module(module, rows), module)
    try:
        logits = teacher.answer(proxy.rows[:_CHECKED])
    # Whoever wrote it may raise anything.
    except Exception as error:
        raise ConfigError(
            f"public-teacher={name!r} must take (batch, {len(proxy.columns)}) float32 with NaN "
            f"for missing values ({type(error).__name__}: {error}): give one that was trained on "
            "these columns"
        ) from error
    _check(name, logits, (min(_CHECKED, len(proxy.rows)), num_classes))
    return teacher


def _check(name: str, logits: Tensor, shape: tuple[int, int]) -> None:
    if tuple(logits.shape) != shape or not logits.isfinite().all():
        raise ConfigError(
            f"public-teacher={name!r} gives shape {tuple(logits.shape)} and must give "
            f"{shape[1]} finite logits for each of {shape[0]} rows: give one that knows the "
            "classes in this order"
        )


def _module(name: str, num_columns: int, num_classes: int) -> nn.Module:
    try:
        module = EntryPoint(name=name, value=name, group="").load()(num_columns, num_classes)
    # An import runs code, which may raise anything.
    except Exception as error:
        raise ConfigError(
            f"public-teacher={name!r} must make a network when called with the numbers of columns "
            f"and classes ({type(error).__name__}: {error}): name a function that does, of a "
            "package that is installed here"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"public-teacher={name!r} makes a {type(module).__name__}, which must be a "
            "torch.nn.Module: name a function that returns one"
        )
    return module.eval().requires_grad_(False)


@torch.inference_mode()
def _by_module(module: nn.Module, rows: Rows) -> Tensor:
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    parts = [module(torch.tensor(rows[start : start + _ROWS_AT_ONCE])) for start in starts]
    return torch.cat(parts).float()


def _session(name: str) -> Callable[[Rows], Tensor]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions have no common base but this.
    except Exception as error:
        raise ConfigError(
            f"public-teacher={name!r} must be an ONNX file ({type(error).__name__}): export it "
            "again"
        ) from error
    outputs = [output.name for output in session.get_outputs()]
    wanted = next((each for each in ("logits", "probabilities") if each in outputs), None)
    if len(session.get_inputs()) != 1 or wanted is None:
        raise ConfigError(
            f"public-teacher={name!r} must have one input and an output named 'logits' or "
            f"'probabilities', and has outputs {outputs}: export it with such a name"
        )
    asked = session.get_inputs()[0].name

    def answer(rows: Rows) -> Tensor:
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        parts: list[Any] = [
            session.run([wanted], {asked: rows[start : start + _ROWS_AT_ONCE]})[0]
            for start in starts
        ]
        found = torch.from_numpy(np.concatenate(parts)).float()
        return found if wanted == "logits" else found.clamp_min(_SMALLEST).log()

    return answer


def _table(name: str, proxy: ProxySet, num_classes: int) -> PublicTeacher:
    try:
        logits = load_file(Path(name))["logits"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(
            f"public-teacher={name!r} must be a safetensors file with a tensor 'logits' "
            f"({type(error).__name__}: {error}): write one"
        ) from error
    _check(name, logits, (len(proxy.rows), num_classes))
    known = {row.tobytes(): place for place, row in enumerate(proxy.rows)}

    def answer(rows: Rows) -> Tensor:
        places = [known.get(row.tobytes(), -1) for row in rows]
        chosen = logits[torch.tensor(places)]
        return torch.where(torch.tensor(places)[:, None] < 0, torch.nan, chosen)

    return PublicTeacher(name, answer)
