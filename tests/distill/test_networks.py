"""Networks for images: shapes, folding, and layers of a pruned network's widths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedistill.distill.networks import NETWORKS, folded, shape_like
from fedistill.features.images import ImageShape

every_network = pytest.mark.parametrize("name", sorted(NETWORKS))
GREY = ImageShape(channels=1, side=8)


def network(name: str, shape: ImageShape = GREY, num_classes: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[name](shape, num_classes)


def used(name: str) -> nn.Module:
    """With statistics of BatchNorm that are none of the first ones."""
    trained = network(name)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        trained(3 * torch.randn(16, 1, 8, 8, generator=generator) + 1)
    return trained.eval()


@settings(deadline=None, max_examples=15)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    channels=st.sampled_from([1, 3]),
    side=st.integers(8, 33),
    num_classes=st.integers(2, 12),
)
def test_any_square_image_gets_a_logit_a_class(
    name: str, channels: int, side: int, num_classes: int
) -> None:
    shape = ImageShape(channels=channels, side=side)
    images = torch.zeros(2, channels, side, side)
    assert network(name, shape, num_classes).eval()(images).shape == (2, num_classes)


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit"])
def test_networks_are_small(name: str) -> None:
    digits = network(name, ImageShape(channels=1, side=28), 10)
    assert 20_000 < sum(each.numel() for each in digits.parameters()) < 250_000


@every_network
def test_an_image_does_not_change_the_answer_to_another(name: str) -> None:
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    trained = used(name)
    with torch.inference_mode():
        torch.testing.assert_close(trained(images)[:1], trained(images[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "resnet", "encoder"])
def test_folding_leaves_answers_and_no_batch_norm(name: str) -> None:
    trained = used(name)
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    small = folded(trained)
    assert any(isinstance(part, nn.BatchNorm2d) for part in trained.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in small.modules())
    with torch.inference_mode():
        torch.testing.assert_close(small(images), trained(images), atol=1e-4, rtol=1e-4)


def test_folding_leaves_a_batch_norm_that_follows_no_convolution() -> None:
    lone = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    kept = [type(part) for part in folded(lone)]
    assert kept == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


@every_network
def test_layers_of_equal_widths_stay_as_they_are(name: str) -> None:
    trained = network(name)
    before = [id(each) for each in trained.parameters()]
    shape_like(trained, trained.state_dict())
    assert [id(each) for each in trained.parameters()] == before
