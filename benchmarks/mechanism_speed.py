"""What a site's answer costs on wide tables: 20,000 rows of 784 columns unless asked otherwise.

    python -m benchmarks.mechanism_speed

For each mechanism it prints seconds of `release`, what is left of them without the feature map, and
the share of noise generation. The claims: `dp-probe` and `votes` release in under 5 s once features
are known, and noise takes less than a tenth of any release. Rows are made up, like images of
digits: most cells are 0. Seconds are of one run, on one thread but for long noise, which takes
all cores; fitting on the public proxy rows and transforming stand apart, because every mechanism
shares them.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.features import proxy_basis
from fedistill.labels import LabelQuestion
from fedistill.mechanisms import mechanism_named, private_model
from fedistill.privacy import discrete_gaussian

MECHANISMS = ("dp-probe", "votes", "sharded", "clipped")
CLAIMED = ("dp-probe", "votes")
MOST_SECONDS = 5.0
MOST_NOISE = 0.1
SMALL_SITE = 20
NUM_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of one release, and those spent in noise and in the feature map."""

    mechanism: str
    release: float
    noise: float
    features: float

    @property
    def given_features(self) -> float:
        """Seconds besides the feature map."""
        return self.release - self.features

    @property
    def noise_share(self) -> float:
        """Share of noise generation in the release."""
        return self.noise / self.release

    @property
    def holds(self) -> bool:
        """Whether the claims hold."""
        quick = self.mechanism not in CLAIMED or self.given_features < MOST_SECONDS
        return quick and self.noise_share < MOST_NOISE


class Clock:
    """Seconds spent inside the functions that it watches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def make_images(num_rows: int, num_columns: int, seed: int) -> LabelledRows:
    """Noisy copies of one sparse picture a class, values 0 to 255."""
    pictures = np.random.default_rng(0).random((NUM_CLASSES, num_columns)) > 0.75
    random = np.random.default_rng(seed)
    labels = random.integers(0, NUM_CLASSES, num_rows)
    ink = random.random((num_rows, num_columns)) * (random.random((num_rows, num_columns)) > 0.3)
    return LabelledRows(
        columns=tuple(f"pixel_{j}" for j in range(num_columns)),
        rows=np.floor(pictures[labels] * ink * 256).astype(np.float32),
        labels=labels,
        num_classes=NUM_CLASSES,
    )


def measure(name: str, rows: LabelledRows, proxy: ProxySet) -> Speed:
    """One release of the mechanism of that name, with features to be computed."""
    mechanism = mechanism_named(name)
    question = LabelQuestion(
        mechanism=name,
        epsilon=1.0,
        delta=1e-5,
        num_classes=NUM_CLASSES,
        proxy_sha256=proxy.sha256,
    )
    plan = mechanism.plan(question, proxy, rows_at_least=SMALL_SITE)
    # What the process keeps for every question of this proxy set is not this release's cost.
    small = rows.take(np.arange(min(SMALL_SITE, len(rows.labels))))
    if name in CLAIMED:
        mechanism.release(small, proxy, plan)
    noise, features = Clock(), Clock()
    with _watching(type(mechanism).__module__, noise, features, proxy):
        start = time.perf_counter()
        mechanism.release(rows, proxy, plan)
        release = time.perf_counter() - start
    return Speed(mechanism=name, release=release, noise=noise.seconds, features=features.seconds)


@contextmanager
def _watching(module: str, noise: Clock, features: Clock, proxy: ProxySet) -> Iterator[None]:
    mapped = type(proxy_basis(proxy).map)
    watched = noise.watch(discrete_gaussian.add_noise)
    with ExitStack() as stack:
        stack.enter_context(patch.object(mapped, "transform", features.watch(mapped.transform)))
        for found in (import_module(module), private_model):
            if "add_noise" in vars(found):
                stack.enter_context(patch.object(found, "add_noise", watched))
        yield


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000, help="private rows of the site")
    parser.add_argument("--columns", type=int, default=784)
    parser.add_argument("--proxy-rows", type=int, default=4_000)
    parser.add_argument("--mechanisms", default=",".join(MECHANISMS), help="commas between them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = make_images(options.rows, options.columns, seed=1)
    public = make_images(options.proxy_rows, options.columns, seed=2)
    proxy = ProxySet(schema=numbers(public.columns), rows=public.rows)
    console = Console(highlight=False)

    start = time.perf_counter()
    basis = proxy_basis(proxy)
    console.print(
        f"fit on {options.proxy_rows:,} proxy rows: {time.perf_counter() - start:.2f} s "
        f"({basis.map.num_features} features)"
    )
    start = time.perf_counter()
    basis.map.transform(rows.rows)
    console.print(f"transform of {options.rows:,} rows: {time.perf_counter() - start:.2f} s")

    speeds = [measure(name, rows, proxy) for name in options.mechanisms.split(",")]
    table = Table(box=None, pad_edge=False)
    for heading in ("mechanism", "release, s", "given features, s", "noise"):
        table.add_column(heading, justify="left" if heading == "mechanism" else "right")
    for speed in speeds:
        seconds = (f"{speed.release:.2f}", f"{speed.given_features:.2f}")
        table.add_row(speed.mechanism, *seconds, f"{speed.noise_share:.1%}")
    console.print(table)
    missed = [speed.mechanism for speed in speeds if not speed.holds]
    verdict = f"do not hold here for {', '.join(missed)}" if missed else "hold"
    console.print(
        f"the claims (under {MOST_SECONDS:g} s given features for {' and '.join(CLAIMED)}, noise "
        f"under {MOST_NOISE:.0%} of every release) {verdict}"
    )


if __name__ == "__main__":
    main()
