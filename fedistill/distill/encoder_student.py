"""A student of images that begins as the run's public encoder.

The encoder has seen what public images look like, and the student need only learn what they are
called: fine-tuning with few labels (Chen et al. 2020, "Big Self-Supervised Models are Strong
Semi-Supervised Learners", section 2). Its file has BatchNorm within the weights of the
convolutions. Each convolution gets one again, which takes its outputs on the public images apart
and puts them together as they were: the student begins with the encoder's very features, and
trains as a network with BatchNorm does.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fedistill.data import ProxySet
from fedistill.data.encoder import read_encoder
from fedistill.distill.network_students import NetworkStudent, Scaled
from fedistill.distill.networks import encoder
from fedistill.errors import ConfigError, DataError
from fedistill.features.encoder_file import StoredNetwork, read_network
from fedistill.features.images import ImageShape
from fedistill.features.onnx_encoder import load_onnx

NAME = "encoder"

_FEW = 8
_SAMPLED = 1000
"""Images whose outputs set the BatchNorms; more would change them by little."""

_CLOSE = 1e-3


def student_from_encoder(proxy: ProxySet, shape: ImageShape, num_classes: int) -> NetworkStudent:
    """The encoder of the proxy set with an untrained last layer.

    Raises:
        ConfigError: The proxy set has no encoder, or none that `fedistill encoder train` wrote.
    """
    if proxy.encoder is None or not proxy.encoder.path:
        raise ConfigError(
            f"student={NAME!r} begins as the encoder, and the run has no encoder's file: set "
            "encoder to one that `fedistill encoder train` wrote, or choose another student"
        )
    try:
        content = read_encoder(proxy.encoder.path)
        stored = read_network(content)
    except DataError as error:
        raise ConfigError(f"student={NAME!r}: {error}") from error
    pixels = shape.side**2
    scale = Scaled(
        stored.mean.repeat_interleave(pixels), stored.std.repeat_interleave(pixels), shape
    )
    images = scale(torch.tensor(proxy.rows[:_SAMPLED]))
    student = NetworkStudent(NAME, scale, _network(stored, images, shape, num_classes), num_classes)
    _check(student, content, proxy)
    return student


@torch.no_grad()
def _network(
    stored: StoredNetwork, images: Tensor, shape: ImageShape, num_classes: int
) -> nn.Module:
    """The network whose features of `images` are those that the file has."""
    network = encoder(shape, num_classes, [len(bias) for _, bias in stored.convolutions])
    layers = [part for part in network.children() if isinstance(part, nn.Sequential)]
    for layer, (weight, bias) in zip(layers, stored.convolutions, strict=True):
        convolution, norm = layer.children()
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError("a layer of the network must be a convolution and its BatchNorm")
        convolution.weight.copy_(weight)
        images = convolution(images)
        variance, mean = torch.var_mean(images, dim=(0, 2, 3))
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)
        images = (images + bias.reshape(1, -1, 1, 1)).relu()
    return network


@torch.no_grad()
def _check(student: NetworkStudent, content: bytes, proxy: ProxySet) -> None:
    """Refuse a file whose network is another one with weights of the same shapes."""
    features = nn.Sequential(*list(student.body.children())[:-1]).eval()
    few = proxy.rows[:_FEW]
    found = normalize(features(student.encoding(torch.tensor(few))), dim=1)
    features.train()
    encode = load_onnx(content, "encoder", len(proxy.columns))
    # Of encoders side by side the student begins as the first, whose numbers come first.
    width = found.shape[1]
    expected = torch.tensor(np.concatenate([encode(row[None]) for row in few]))[:, :width]
    expected = normalize(expected, dim=1)
    if found.shape != expected.shape or (found - expected).abs().max() > _CLOSE:
        raise ConfigError(
            f"student={NAME!r} must begin as the encoder, whose file holds another network than "
            "`fedistill encoder train` writes: train one, or choose another student"
        )
