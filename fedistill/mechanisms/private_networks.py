"""The networks that `dp-sgd` trains, how rows become their inputs, and what they must not do.

Inputs are a function of a record and of public proxy rows alone: the public feature map for `mlp`,
columns scaled by the proxy set's quantiles for all others, or embeddings where the proxy set has an
encoder. All are finite and bounded.
"""

import math
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.data.wording import suggestion
from fedistill.errors import PolicyRefusal
from fedistill.features import TeacherColumns, proxy_basis
from fedistill.teachers.scaling import Scaling
from fedistill.teachers.teacher import without_infinities

if TYPE_CHECKING:
    import torch

Inputs = npt.NDArray[np.float32]
Factory = Callable[[int, int], "torch.nn.Module"]

HIDDEN = 16
FEATURE_SCALE = 4.0
"""Public features have norm one; a network's first layer wants entries nearer to one."""

_CHECKED_ROWS = 4


def network_named(name: str, num_inputs: int, num_classes: int) -> "torch.nn.Module":
    """An untrained network, its first weights the same for all; (rows, inputs) -> (rows, classes).

    Args:
        name: "mlp" (also ""), "cnn", or an import path `package.module:factory`. A factory takes
            the numbers of inputs and classes and returns a `torch.nn.Module` that maps
            (batch, inputs) to logits (batch, classes). An import path runs code, so a site must
            have allowed the very name.
        num_inputs: Columns of what `inputs_of` gives.
        num_classes: Classes of the task, at least 2.

    Raises:
        PolicyRefusal: There is none, it cannot be made, or a CNN's rows are no square images.
    """
    import torch

    factory = NETWORKS.get(name or "mlp") or _imported(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            network = factory(num_inputs, num_classes)
        except PolicyRefusal:
            raise
        # Whoever wrote the factory may raise anything.
        except Exception as error:
            raise PolicyRefusal(
                f"teacher={name!r} must make a network when called with the numbers of inputs and "
                f"classes ({type(error).__name__}: {error}): name a function that does"
            ) from error
    if not isinstance(network, torch.nn.Module):
        raise PolicyRefusal(
            f"teacher={name!r} makes a {type(network).__name__}, which must be a torch.nn.Module: "
            "name a function that returns one"
        )
    return network


def inputs_of(name: str, proxy: ProxySet) -> Callable[[npt.NDArray[np.float32]], Inputs]:
    """How raw rows (num_rows, num_columns) become a network's inputs (num_rows, num_inputs).

    Raises:
        PolicyRefusal: A CNN is to learn embeddings, which are no images, or the proxy set's encoder
            cannot be used.
    """
    if name in ("", "mlp"):
        basis = proxy_basis(proxy)
        return lambda rows: (basis.features(rows) * FEATURE_SCALE).astype(np.float32)
    if name == "cnn" and proxy.encoder is not None:
        raise PolicyRefusal(
            f"teacher='cnn' learns pixels, and encoder={proxy.encoder.name!r} gives embeddings: "
            "choose teacher='mlp', or leave encoder empty"
        )
    columns = TeacherColumns.of(proxy)
    scaling = Scaling.fit(without_infinities(columns.transform(proxy.rows)))
    return lambda rows: scaling.transform(without_infinities(columns.transform(rows))).astype(
        np.float32
    )


def check_network(name: str, network: "torch.nn.Module", inputs: Inputs, num_classes: int) -> None:
    """Refuse a network whose per-record gradients Opacus cannot give, or that mixes records.

    Args:
        name: As for `network_named`.
        network: To check; its gradients are cleared afterwards.
        inputs: (num_rows, num_inputs) of public rows, at least one.
        num_classes: Classes of the task.

    Raises:
        PolicyRefusal: Names the layer and the fix.
    """
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    unfit = ModuleValidator.validate(network, strict=False)
    unfit = unfit or GradSampleModule.validate(network, strict=False)
    if unfit:
        raise PolicyRefusal(
            f"teacher={name!r} cannot be trained privately: {_first_line(unfit[0])}: replace "
            "BatchNorm by torch.nn.GroupNorm, and other layers by ones that treat each row by "
            "itself (opacus.validators.ModuleValidator.fix replaces what it can)"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise PolicyRefusal(f"teacher={name!r} has no parameter to train: choose one that has")
    rows = np.resize(inputs, (_CHECKED_ROWS, inputs.shape[1]))
    try:
        # A row that is tried by itself must be answered as it is among others.
        _try(network, rows[:1])
        shape, mixes, idle = _try(network, rows)
    except Exception as error:
        raise PolicyRefusal(
            f"teacher={name!r} cannot answer public rows of {rows.shape[1]} inputs "
            f"({type(error).__name__}: {error}): make it take (batch, inputs)"
        ) from error
    if shape != (_CHECKED_ROWS, num_classes):
        raise PolicyRefusal(
            f"teacher={name!r} answers {shape} for {_CHECKED_ROWS} rows, which must be "
            f"({_CHECKED_ROWS}, {num_classes}): return logits, one for each class"
        )
    if mixes:
        raise PolicyRefusal(
            f"teacher={name!r} lets one row change another row's answer, so a row's gradient "
            "cannot be clipped: make it treat each row by itself"
        )
    if idle:
        raise PolicyRefusal(
            f"teacher={name!r} does not use {idle[0]}, so no row has a gradient for it: make every "
            "parameter take part in the answer"
        )


def mlp(num_inputs: int, num_classes: int) -> "torch.nn.Module":
    """One hidden layer; its answer starts uniform."""
    import torch

    head = torch.nn.Linear(HIDDEN, num_classes)
    return torch.nn.Sequential(torch.nn.Linear(num_inputs, HIDDEN), torch.nn.Tanh(), _zeros(head))


def cnn(num_inputs: int, num_classes: int) -> "torch.nn.Module":
    """Two small convolutions with GroupNorm on square images of one channel.

    Raises:
        PolicyRefusal: `num_inputs` is no square, or the image is smaller than 8 by 8.
    """
    import torch

    side = math.isqrt(num_inputs)
    if side * side != num_inputs or side < 8:
        raise PolicyRefusal(
            f"teacher='cnn' needs rows that are square images of one channel, at least 8 by 8, and "
            f"{num_inputs} columns are not: choose teacher='mlp', or pass the pixels alone"
        )
    head = torch.nn.Linear(32 * (side // 4) ** 2, num_classes)
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, side, side)),
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.GroupNorm(4, 16),
        torch.nn.Tanh(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.GroupNorm(4, 32),
        torch.nn.Tanh(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        _zeros(head),
    )


NETWORKS: dict[str, Factory] = {"mlp": mlp, "cnn": cnn}
"""Our own, by name."""


def _imported(name: str) -> Factory:
    if ":" not in name:
        raise PolicyRefusal(
            f"teacher={name!r} must be a network of dp-sgd or an import path "
            f"package.module:factory: {suggestion(name, NETWORKS)}"
        )
    try:
        factory: Factory = EntryPoint(name=name, value=name, group="").load()
    # An import runs code, which may raise anything.
    except Exception as error:
        raise PolicyRefusal(
            f"teacher={name!r} cannot be imported ({type(error).__name__}: {error}): write it as "
            "package.module:factory of a package that the site has installed"
        ) from error
    return factory


def _try(network: "torch.nn.Module", rows: Inputs) -> tuple[tuple[int, ...], bool, list[str]]:
    """The answer's shape, whether its first row depends on other rows, parameters without use."""
    import torch

    given = torch.from_numpy(rows).requires_grad_()
    with torch.random.fork_rng(devices=[]):
        answer = network.train()(given)
        answer[0].sum().backward()
    idle = [
        name
        for name, each in network.named_parameters()
        if each.requires_grad and each.grad is None
    ]
    network.zero_grad()
    others = torch.zeros(1) if given.grad is None else given.grad[1:]
    return tuple(answer.shape), bool((others != 0).any()), idle


def _zeros(layer: "torch.nn.Linear") -> "torch.nn.Linear":
    import torch

    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer


def _first_line(error: Any) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
