"""Students by name: the tabular MLP, networks for square images, or a network of the user's own."""

from importlib.metadata import EntryPoint

import numpy as np
import torch
from torch import Tensor, nn

from fedistill.data import ProxySet
from fedistill.data.schema import Kind
from fedistill.distill.encoding import Rows, TabularEncoding
from fedistill.distill.networks import NETWORKS
from fedistill.distill.students import Student, TabularStudent
from fedistill.errors import ConfigError, DataError
from fedistill.features.images import ImageShape, image_shape

HIDDEN = (64, 64)
_SMALLEST_STD = 1e-6
FARTHEST = 10.0


class Scaled(nn.Module):
    """Raw columns, centred and scaled by public values, at most 10 deviations; 0 where missing.

    Attributes:
        mean: (num_columns,).
        std: (num_columns,), positive.
        shape: Of the images that come out, (batch, channels, side, side); None for rows.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, shape: ImageShape | None) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.shape = shape

    def forward(self, rows: Tensor) -> Tensor:
        """Raw rows (batch, num_columns) to what a network takes."""
        scaled = torch.where(rows.isnan(), 0.0, (rows - self.mean) / self.std)
        scaled = scaled.clamp(-FARTHEST, FARTHEST)
        if self.shape is None:
            return scaled
        return scaled.reshape(-1, self.shape.channels, self.shape.side, self.shape.side)


class NetworkStudent(Student):
    """A network on scaled columns."""

    encoding: Scaled

    def __init__(self, name: str, encoding: Scaled, body: nn.Module, num_classes: int) -> None:
        super().__init__(name, len(encoding.mean), num_classes)
        self.encoding, self.body = encoding, body

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits."""
        return [layer for layer in self.body.modules() if isinstance(layer, nn.Linear)][-1]


class OwnNetwork(nn.Module):
    """A network of the user's, and a fixed layer that gives its logits their scale."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.last = nn.Linear(num_classes, num_classes)
        nn.init.eye_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.last.requires_grad_(False)

    def forward(self, values: Tensor) -> Tensor:
        """Scaled rows (batch, num_columns), or images, to logits."""
        logits: Tensor = self.last(self.network(values.flatten(1)))
        return logits


def make_student(
    name: str, proxy: ProxySet, num_classes: int, *, as_images: bool = False
) -> Student:
    """A freshly initialised student.

    Args:
        name: "mlp", "cnn", "resnet", "vit", "encoder" (which begins as the proxy set's encoder), or
            an import path `package.module:factory`. A factory takes the numbers of inputs and of
            classes, and returns a `torch.nn.Module` that maps (batch, num_inputs) float32 to
            logits (batch, num_classes).
        proxy: Its schema says what the columns mean, its rows set their scale.
        num_classes: At least 2.
        as_images: Whether the columns of a network of one's own are pixels.

    Raises:
        ConfigError: No student has this name, it learns images and the columns are none, or a
            network of one's own cannot be made or does not fit.
        DataError: No proxy column varies.
    """
    if name == "mlp":
        return TabularStudent(TabularEncoding.fit(proxy), HIDDEN, num_classes)
    if name not in NETWORKS and ":" not in name:
        raise ConfigError(
            f"student={name!r} must be 'mlp', {', '.join(map(repr, NETWORKS))} or an import path "
            "'package.module:factory': name a student that exists"
        )
    shape = _image_shape(name, proxy) if name in NETWORKS or as_images else None
    if name == "encoder" and shape is not None:
        from fedistill.distill.encoder_student import student_from_encoder

        return student_from_encoder(proxy, shape, num_classes)
    student = network_student(name, Scaled(*_scale(proxy.rows, shape), shape), num_classes)
    if isinstance(student.body, OwnNetwork):
        _check(student, student.body.network, proxy.rows)
    return student


def network_student(name: str, encoding: Scaled, num_classes: int) -> NetworkStudent:
    """An untrained network on that encoding.

    Raises:
        ConfigError: A network of one's own cannot be made.
    """
    if name in NETWORKS and encoding.shape is not None:
        return NetworkStudent(
            name, encoding, NETWORKS[name](encoding.shape, num_classes), num_classes
        )
    network = _imported(name, len(encoding.mean), num_classes)
    return NetworkStudent(name, encoding, OwnNetwork(network, num_classes), num_classes)


def _image_shape(name: str, proxy: ProxySet) -> ImageShape:
    texts = [column.name for column in proxy.schema if column.kind is Kind.CATEGORY]
    try:
        if texts:
            raise DataError(f"column {texts[0]!r} holds texts")
        return image_shape(len(proxy.columns))
    except DataError as error:
        raise ConfigError(
            f"student={name!r} learns square images ({error}): choose student='mlp' for tables, or "
            "name in ignore-columns what is no pixel"
        ) from error


def _scale(rows: Rows, shape: ImageShape | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (num_columns,) both: of a column, or of all pixels of its channel."""
    parts = rows.shape[1] if shape is None else shape.channels
    values = rows.astype(np.float64).reshape(len(rows), parts, -1)
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=(0, 2)), 1)
    mean = np.where(finite, values, 0.0).sum(axis=(0, 2)) / count
    beyond = np.where(finite, values - mean[:, None], 0.0)
    std = np.sqrt((beyond**2).sum(axis=(0, 2)) / count)
    std = np.where(std > _SMALLEST_STD * np.maximum(np.abs(mean), 1.0), std, 1.0)
    scale = np.repeat(np.stack([mean, std]), values.shape[2], axis=1).astype(np.float32)
    return torch.from_numpy(scale[0]), torch.from_numpy(scale[1])


def _imported(name: str, num_inputs: int, num_classes: int) -> nn.Module:
    try:
        network = EntryPoint(name=name, value=name, group="").load()(num_inputs, num_classes)
    # An import runs code, and whoever wrote the factory may raise anything.
    except Exception as error:
        raise ConfigError(
            f"student={name!r} must make a network when called with the numbers of inputs and "
            f"classes ({type(error).__name__}: {error}): name a function that does, of a package "
            "that is installed here"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"student={name!r} makes a {type(network).__name__}, which must be a torch.nn.Module: "
            "name a function that returns one"
        )
    return network


@torch.inference_mode()
def _check(student: NetworkStudent, network: nn.Module, rows: Rows) -> None:
    """Refuse a network of one's own that does not map rows to logits."""
    few = student.encoding(torch.tensor(rows[:8])).flatten(1)
    network.eval()
    try:
        logits = network(few)
    except Exception as error:
        raise ConfigError(
            f"student={student.name!r} must take (batch, {student.num_columns}) float32 "
            f"({type(error).__name__}: {error}): let its first layer take as many inputs as the "
            "factory is told of"
        ) from error
    if logits.shape != (len(few), student.num_classes) or not logits.isfinite().all():
        raise ConfigError(
            f"student={student.name!r} gives shape {tuple(logits.shape)} and must give "
            f"{student.num_classes} finite logits a row: let its last layer have as many outputs "
            "as the factory is told of classes"
        )
    network.train()
