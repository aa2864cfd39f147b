"""BatchNorm that knows images as they are.

A network trained on moved images keeps the means and deviations of these: moving interpolates
between pixels, so moved images are smoother. Whoever asks it afterwards shows images unmoved, and
each layer then sees other values than it was scaled for.
"""

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

AT_ONCE = 1024


def settle(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of every BatchNorm to those of the images, in place.

    Nothing else changes; a network without BatchNorm stays as it is.

    Args:
        network: Takes images; on their device.
        images: (num_images, channels, side, side), public.
    """
    update_bn(images.split(AT_ONCE), network)  # type: ignore[no-untyped-call]
