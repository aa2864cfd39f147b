"""How much faster many small teachers train as one batch than one after the other.

    python -m benchmarks.sharded_training

Both train the same networks on the same batches of rows; the rows are made up. One after the other
is a plain PyTorch loop over modules. Times are the fastest of the repeats, on one thread unless
asked otherwise.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fedistill.teachers import mlp

Shard = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
Parameters = dict[str, torch.Tensor]

NUM_CLASSES = 2


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shards", type=int, default=250)
    parser.add_argument("--rows", type=int, default=40, help="mean rows a shard")
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shards = make_shards(arguments.shards, arguments.rows, arguments.columns)
    slow, apart = fastest(lambda: one_after_the_other(shards), arguments.repeats)
    fast, together = fastest(lambda: mlp.train_together(shards, NUM_CLASSES), arguments.repeats)
    difference = max(float((apart[name] - together[name]).abs().max()) for name in apart)
    print(f"{len(shards)} teachers one after the other: {slow:.2f} s")
    print(f"{len(shards)} teachers in one vmap batch:   {fast:.2f} s")
    print(f"ratio: {slow / fast:.1f}")
    print(f"largest difference of a parameter: {difference:.1e}")


def make_shards(num_shards: int, mean_rows: int, num_columns: int) -> list[Shard]:
    """Rows whose label depends on two columns; sizes vary as those of hashed shards do."""
    random = np.random.default_rng(0)
    shards = []
    for size in np.maximum(random.poisson(mean_rows, num_shards), 1):
        rows = random.normal(size=(size, num_columns)).astype(np.float32)
        shards.append((rows, (rows[:, 0] + rows[:, 1] > 0).astype(np.int64)))
    return shards


def one_after_the_other(shards: Sequence[Shard]) -> Parameters:
    """Parameters (num_shards, ...) by name, from the loop that one would write for one teacher."""
    trained = [train(*shard) for shard in shards]
    return {name: torch.stack([one[name] for one in trained]) for name in trained[0]}


def train(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Parameters:
    """One network on one shard."""
    order = mlp.reading_order(len(labels))
    inputs, targets = torch.from_numpy(features)[order], torch.from_numpy(labels)[order]
    network = mlp.network(inputs.shape[1], NUM_CLASSES)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=mlp.LEARNING_RATE, weight_decay=mlp.WEIGHT_DECAY
    )
    for step in range(mlp.STEPS):
        rows = (step * mlp.ROWS_A_STEP + torch.arange(mlp.ROWS_A_STEP)) % len(targets)
        loss = torch.nn.functional.cross_entropy(network(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach() for name, value in network.named_parameters()}


def fastest(work: Callable[[], Parameters], repeats: int) -> tuple[float, Parameters]:
    """Seconds of the fastest repeat, and its result."""
    seconds, result = np.inf, {}
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds = min(seconds, time.perf_counter() - start)
    return float(seconds), result


if __name__ == "__main__":
    main()
