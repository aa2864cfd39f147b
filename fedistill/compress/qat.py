"""Quantization-aware training: the student learns behind the rounding of its int8 file.

torchao's PT2E workflow puts fake quantization before and behind the layers of the exported body
(Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference", section 3), on the grid that onnxruntime will use: uint8 activations, int8 weights
with a scale per output channel, the same layers in float. The teacher is the unpruned student.
What is kept are the trained float weights: `quantize_file` rounds them, since onnxruntime leaves
convolutions of an exported PT2E graph in float.
"""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedistill.compress.finetune import lessons_of
from fedistill.distill.encoding import Rows
from fedistill.distill.network_students import NetworkStudent
from fedistill.distill.networks import folded, with_folded
from fedistill.distill.progress import Progress
from fedistill.distill.students import Student
from fedistill.errors import ConfigError

STEPS = 1500
LEARNING_RATE = 1e-3
LARGEST_BATCH = 65536

_LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
_RELU = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


def check_installed() -> None:
    """Refuse to begin without torchao.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(
            "quantize='int8-qat' trains with torchao, which is not installed: pip install "
            "'fedistill[qat]', or set quantize='int8'"
        )


def train_quantized(
    student: Student,
    proxy_rows: Rows,
    *,
    teacher: Student,
    reduce_range: bool,
    float_ends: str = "last",
    seed: int,
    progress: Progress | None = None,
    steps: int = STEPS,
) -> Student:
    """A student of the same shape whose weights bear rounding to int8.

    Args:
        student: Where training starts; left as it was.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        teacher: The unpruned student, from whose answers it learns.
        reduce_range: Whether weights will have 7 bits.
        float_ends: Layers that will stay in float32: "last", "both" or "none".
        seed: Of the copies and the batches.
        progress: Called with steps, or epochs of networks, done and in all.
        steps: Of the optimizer, at least.

    Raises:
        ConfigError: torchao is not installed.
    """
    check_installed()
    trained, learner = copy.deepcopy(student), copy.deepcopy(student)
    of_network = isinstance(student, NetworkStudent)
    body = folded(student.body) if of_network else copy.deepcopy(student.body).eval()
    with torch.no_grad():
        example = student.encoding(torch.tensor(proxy_rows[:2]))
    learner.body = _Graph(_prepared(body, example, reduce_range, float_ends))
    learn = lessons_of(teacher, proxy_rows, seed=seed)
    with _quiet():
        learn(learner, steps=steps, seed=seed, learning_rate=LEARNING_RATE, progress=progress)
    state = learner.body.graph.state_dict()
    weights = {name: state[name] for name in body.state_dict()}
    if of_network:
        trained.body = with_folded(student.body, weights)
    else:
        trained.body.load_state_dict(weights)
    return trained.eval()


class _Graph(nn.Module):
    """An exported body, which is as it is in training and in evaluation."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> "_Graph":
        """Exported graphs refuse the switch, and folded bodies need none."""
        self.training = mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """What the body takes to logits (batch, num_classes)."""
        logits: Tensor = self.graph(inputs)
        return logits


def _prepared(body: nn.Module, example: Tensor, reduce_range: bool, float_ends: str) -> nn.Module:
    """The exported body with fake quantization in it."""
    batch = torch.export.Dim("batch", min=2, max=LARGEST_BATCH)
    with _quiet():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

        exported = torch.export.export(body, (example,), dynamic_shapes=({0: batch},))
        prepared: nn.Module = prepare_qat_pt2e(
            exported.module(), _grid_of_onnxruntime(reduce_range, float_ends)
        )
        # Observers take the shape of what they see, which a moving average must not see change.
        prepared(example)
    return prepared


def _grid_of_onnxruntime(reduce_range: bool, float_ends: str) -> Any:
    """A torchao quantizer that annotates what `quantize_file` rounds."""
    from torchao.quantization.pt2e import (
        FusedMovingAvgObsFakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
    )
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

    activation = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver
        ),
    )
    largest = 64 if reduce_range else 127
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-largest,
        quant_max=largest,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0
        ),
    )

    class Grid(Quantizer):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            layers = [node for node in model.graph.nodes if node.target in _LAYERS]
            dense = [node for node in layers if node.target == _LAYERS[1]]
            ends = {"none": [], "last": dense[-1:], "both": layers[:1] + dense[-1:]}[float_ends]
            for node in layers:
                if node not in ends:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: activation, node.args[1]: weight},
                        _annotated=True,
                    )
                    users = list(node.users)
                    # A Relu melts into the layer before it: what is rounded comes out of it.
                    if len(users) == 1 and users[0].target in _RELU:
                        users[0].meta["quantization_annotation"] = QuantizationAnnotation(
                            output_qspec=activation, _annotated=True
                        )
                    else:
                        annotation = node.meta["quantization_annotation"]
                        annotation.output_qspec = activation
            return model

        def validate(self, model: Any) -> None:
            pass

    return Grid()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchao's remarks on kernels that it lacks, and its deprecations, off the screen."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
