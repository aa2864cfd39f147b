"""FedAvg with DP-SGD as one builds it from Flower and Opacus.

Each of ten rounds, every site trains the average of the round before by DP-SGD (Poisson sampling,
ghost clipping) and sends its weights. Opacus' default accountant (PRV, add/remove adjacency)
calibrates the noise to all steps of all rounds. Noise and sampling are seeded from the operating
system; both are Opacus' own, so floating point from PyTorch's Mersenne Twister: good enough to
measure utility, not the guarantee that fedistill's integer noise gives.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from benchmarks.baselines.dp_sgd import ROUNDS, dp_sgd, noise_multiplier
from benchmarks.baselines.inputs import Inputs, Part
from benchmarks.baselines.settings import Setting
from fedistill.evaluate.metrics import auc
from fedistill.federation.local_grid import LocalGrid
from fedistill.federation.messages import wire_bytes

_HIDDEN = 64


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished federation.

    Attributes:
        model: The last average.
        bytes_up: What one site sent over all rounds, as Flower serialises it.
        seconds: Wall time of all rounds, sites one after the other.
    """

    model: nn.Module
    bytes_up: int
    seconds: float

    def auc(self, part: Part) -> float:
        """Area under the ROC curve on these rows."""
        with torch.no_grad():
            logits = self.model(torch.from_numpy(part.inputs)).double()
        return auc(logits.softmax(dim=1).numpy(), part.labels) or 0.5


def train(
    inputs: Inputs, setting: Setting, *, epsilon: float, seed: int, noise: float | None = None
) -> Trained:
    """Run the federation.

    Args:
        inputs: All sites' rows.
        setting: What a user chooses.
        epsilon: Cost of the whole run at delta 1e-5, record level, add/remove.
        seed: Decides the first weights alone.
        noise: Noise multiplier instead of the one that `epsilon` calls for; for checks.
    """
    if noise is None:
        noise = noise_multiplier(epsilon, setting)
    start = time.monotonic()
    torch.manual_seed(seed)
    model = _model(inputs, setting)
    nodes = len(inputs.sites)
    grid = _MeasuringGrid(_client_app(inputs, setting, noise), {}, num_nodes=nodes)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=ROUNDS)
    model.load_state_dict(result.arrays.to_torch_state_dict())
    return Trained(model=model, bytes_up=max(grid.up.values()), seconds=time.monotonic() - start)


class _MeasuringGrid(LocalGrid):
    """Counts the bytes of replies by node, and lets no failure pass as a missing site."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = list(super().send_and_receive(messages, timeout=timeout))
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"a site failed: {reply.error.reason}")
            self.up[reply.metadata.src_node_id] += wire_bytes(reply.content)
        return replies

    @cached_property
    def up(self) -> Counter[int]:
        """Bytes that each node sent."""
        return Counter()


def _client_app(inputs: Inputs, setting: Setting, noise: float) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        model = _model(inputs, setting)
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        site = inputs.sites[int(context.node_config["partition-id"])]
        dp_sgd(model, site, setting, noise)
        # All sites count alike: row counts are private under add/remove, and thirds are equal.
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def _model(inputs: Inputs, setting: Setting) -> nn.Module:
    num_inputs = inputs.proxy.inputs.shape[1]
    if setting.model == "linear":
        linear = nn.Linear(num_inputs, inputs.num_classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear
    return nn.Sequential(
        nn.Linear(num_inputs, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, inputs.num_classes)
    )
