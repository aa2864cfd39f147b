"""Seeing a network's layers while it answers."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedistill.data.wording import suggestion
from fedistill.distill.feature_losses import DEPTHS
from fedistill.errors import ConfigError

_ACTIVATIONS = nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU, nn.ELU


class Tapped:
    """A network whose named layers leave their last outputs in `seen`, by depth."""

    def __init__(self, network: nn.Module, layers: Mapping[str, str]) -> None:
        self.seen: dict[str, Tensor] = {}
        self._hooks = [
            network.get_submodule(layer).register_forward_hook(self._keeper(depth))
            for depth, layer in layers.items()
        ]

    def taken(self) -> dict[str, Tensor]:
        """The outputs, which are forgotten here: they would keep the graph alive."""
        seen, self.seen = self.seen, {}
        return seen

    def close(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, depth: str) -> Callable[[nn.Module, object, Tensor], None]:
        def keep(module: nn.Module, given: object, output: Tensor) -> None:
            self.seen[depth] = output

        return keep


@torch.no_grad()
def outputs_of(network: nn.Module, layers: Mapping[str, str], inputs: Tensor) -> dict[str, Tensor]:
    """What these layers give for `inputs`, by depth; the network is left as it was."""
    learning = network.training
    tapped = Tapped(network.eval(), layers)
    try:
        network(inputs)
        return tapped.taken()
    finally:
        tapped.close()
        network.train(learning)


def check_layer(network: nn.Module, name: str, whose: str) -> None:
    """Refuse a layer that there is not.

    Raises:
        ConfigError: Comes with the nearest name.
    """
    names = [each for each, _ in network.named_modules() if each]
    if name not in names:
        raise ConfigError(f"{whose} has no layer {name!r}: {suggestion(name, names)}")


def guessed_layers(network: nn.Module) -> dict[str, str]:
    """Activations a third, two thirds and all the way through, by depth; empty for none."""
    found = [name for name, layer in network.named_modules() if isinstance(layer, _ACTIVATIONS)]
    return dict(zip(DEPTHS, _spread(found), strict=False))


def _spread(names: Sequence[str]) -> list[str]:
    """At most three names, the last of them and those a third and two thirds before it."""
    count = min(len(names), len(DEPTHS))
    return [names[len(names) * (place + 1) // count - 1] for place in range(count)]
