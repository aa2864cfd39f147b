"""What else one could do with MNIST's three sites: FedAvg with DP-SGD, at the same epsilons.

    python -m benchmarks.mnist_baselines --data-dir DIR --encoders DIR

The split is that of `benchmarks.mnist_pate`. `pixels` is a small convolutional network, which is
what a user would train; `features` is a linear model on the embeddings of the seed's public
encoder, which `benchmarks.mnist_pate --encoders` left. Each round every site trains the average of
the round before by DP-SGD and all weights are averaged alike, which is Flower's FedAvg for sites of
equal size. Opacus' PRV accountant calibrates the noise to all steps of all rounds, add/remove of
one image, delta 1e-5.

Either variant is tuned over as many settings, by its accuracy on the 9,000 public images with their
true labels. We never read these, so this flatters the baseline.
"""

import argparse
import copy
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from benchmarks.baselines.dp_sgd import ROUNDS, dp_sgd, noise_multiplier
from benchmarks.baselines.inputs import Part
from benchmarks.baselines.settings import Setting
from benchmarks.digits import CLASSES, Settings, embedded_digits, read_digits
from benchmarks.mnist_pate import EPSILONS, shown
from fedistill.mechanisms.private_networks import cnn


def _setting(optimizer: str, rate: float, clip: float, batches: int, epochs: int) -> Setting:
    return Setting(
        model="", optimizer=optimizer, rate=rate, clip=clip, batches=batches, epochs=epochs
    )


SETTINGS = {
    "pixels": (
        _setting("momentum", 0.2, 1.0, 20, 1),
        _setting("momentum", 0.5, 0.3, 20, 1),
        _setting("adam", 0.005, 1.0, 10, 1),
    ),
    "features": (
        _setting("momentum", 1.0, 1.0, 10, 1),
        _setting("momentum", 4.0, 0.3, 10, 1),
        _setting("adam", 0.05, 1.0, 10, 1),
    ),
}
"""By what the model sees; either variant has as many."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracy on the public images, by which a setting is chosen, and on those that measure."""

    public: float
    measured: float


def run(variant: str, epsilon: float, setting: Setting, seed: int, settings: Settings) -> Scores:
    """One federation from its first round to its scores."""
    torch.set_num_threads(1)
    sites, public, scored = _parts(variant, seed, settings)
    torch.manual_seed(seed)
    model = _model(variant, public.inputs.shape[1]).to(settings.device)
    noise = noise_multiplier(epsilon, setting)
    for _ in range(ROUNDS):
        locally = [copy.deepcopy(model) for _ in sites]
        for each, site in zip(locally, sites, strict=True):
            dp_sgd(each, site, setting, noise)
        states = [each.state_dict() for each in locally]
        model.load_state_dict(
            {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
        )
    return Scores(public=_accuracy(model, public), measured=_accuracy(model, scored))


def _parts(variant: str, seed: int, settings: Settings) -> tuple[list[Part], Part, Part]:
    digits = read_digits(settings.file, settings.limit)
    if variant == "pixels":
        rows = [*digits.sites, (digits.public, digits.public_labels), digits.scored]
        parts = [Part(inputs=each / np.float32(255), labels=labels) for each, labels in rows]
    else:
        public, sites, scored = embedded_digits(seed, settings)
        labels = [*(labels for _, labels in digits.sites), digits.public_labels, digits.scored[1]]
        parts = [
            Part(inputs=each, labels=those)
            for each, those in zip([*sites, public, scored], labels, strict=True)
        ]
    return parts[:-2], parts[-2], parts[-1]


def _model(variant: str, num_inputs: int) -> nn.Module:
    """Its answer starts uniform."""
    if variant == "pixels":
        return cnn(num_inputs, CLASSES)
    linear = nn.Linear(num_inputs, CLASSES)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


@torch.inference_mode()
def _accuracy(model: nn.Module, part: Part) -> float:
    model.cpu().eval()
    batches = torch.split(torch.from_numpy(part.inputs), 1000)
    answers = [model(batch).argmax(dim=1) for batch in batches]
    return float((torch.cat(answers).numpy() == part.labels).mean())


def chosen(scores: Mapping[Setting, Sequence[Scores]]) -> Setting:
    """The setting that is best on the public images, on the mean of its seeds."""
    return max(scores, key=lambda each: float(np.mean([score.public for score in scores[each]])))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of mnist.npz")
    parser.add_argument("--encoders", type=Path, required=True, help="folder of the encoders")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=12, help="federations side by side")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where all of it runs"
    )
    parser.add_argument("--limit", type=int, default=10**9, help="images of each part, for a try")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console(highlight=False, width=120)
    settings = Settings(
        file=arguments.data_dir / "mnist.npz",
        encoders=arguments.encoders,
        epochs=0,
        student_epochs=0,
        honest=0,
        device=arguments.device,
        limit=arguments.limit,
    )
    found: dict[tuple[str, float], dict[Setting, list[Scores]]] = {}
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        asked = {
            pool.submit(run, variant, epsilon, setting, seed, settings): (variant, epsilon, setting)
            for variant in SETTINGS
            for epsilon in EPSILONS
            for seed in range(arguments.seeds)
            for setting in SETTINGS[variant]
        }
        try:
            done = track(as_completed(asked), "federations", total=len(asked), console=console)
            for each in done:
                variant, epsilon, setting = asked[each]
                by_setting = found.setdefault((variant, epsilon), {})
                by_setting.setdefault(setting, []).append(each.result())
        except KeyboardInterrupt:
            console.print("cut off: this is what was done")
            pool.shutdown(wait=False, cancel_futures=True)
    table = Table("FedAvg + DP-SGD on", "epsilon", "setting", "public %", "accuracy %", box=None)
    for (variant, epsilon), scores in sorted(found.items()):
        best = chosen(scores)
        table.add_row(
            variant,
            f"{epsilon:g}",
            str(best).removeprefix(", "),
            shown([each.public for each in scores[best]]),
            shown([each.measured for each in scores[best]]),
        )
    console.print(table)


if __name__ == "__main__":
    main()
