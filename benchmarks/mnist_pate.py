"""Digits without a private label leaving: MNIST on PATE's split, beside published figures.

    python -m benchmarks.mnist_pate --data-dir DIR

DIR holds `mnist.npz` (x_train, y_train, x_test, y_test). As in PATE (Papernot et al. 2018), the
first 9,000 test images are public and unlabelled, and the last 1,000 measure the student. Three
sites hold 20,000 training images each. An encoder learns from the 9,000 public images alone; sites
answer on its embeddings, and a student that starts as the encoder learns from the answer. A faint
answer is first spread over neighbouring public images. Every seed has its own encoder, noise and
student.

Nothing is chosen by a label. AGREES is the share of public images on which the student says what
the sites' answer says, and ALIKE that on which two seeds' students say the same: by these the ways
and the student's recipe were chosen. CROSSED is AGREES of students that never saw the label of the
image that they are asked about, where labels were checked so (`fedistill.distill.cross_fitting`).
Each row is a run of its own, and asking three ways costs three answers. PUBLIC is how many of the
9,000 the student gets right, and ANSWER how many the sites' answer itself does; only these two
columns read their labels.

Each way's epsilon holds at delta 1e-5, add/remove of one image, and depends on no data. With shared
noise it holds against the server while as many sites as `--honest` says are honest; with
`trust = "none"` against everybody. `sharded` (Confident-GNMax, 1,000 teachers a site) and `dp-sgd`
(a small network on the embeddings) have no sum, so they are asked without trust alone. Rows are
embedded beforehand and in batches, where the product embeds each alone: their bits differ, and
nothing else does.

Made for one GPU: first `--encoder-jobs` encoders train side by side, then `--jobs` processes ask
and distil. `--encoders` keeps the encoders for the next call, and `--results` has what was done
whenever it ends.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.digits import NUM_SITES, Settings, make_encoder
from benchmarks.digits_answers import ALONE, Way
from benchmarks.digits_students import STUDENTS, Result, measure

EPSILONS = (0.1, 0.5, 1.0)
PUBLISHED = (
    ("PATE, LNMax (Papernot et al. 2018)", 2.04, 98.0, "data-dependent, 250 teachers"),
    ("PATE, Confident-GNMax (Papernot et al. 2018)", 1.97, 98.5, "data-dependent, 250 teachers"),
    ("Private-kNN (Zhu et al. 2020)", 0.47, 98.8, "data-dependent, one data owner"),
)
"""As their authors state them: name, epsilon at delta 1e-5, accuracy in percent, and what for."""

MECHANISMS = ("votes", "dp-probe", "corrections", *ALONE)
MEASURES = ("accuracy %", "public %", "agrees %", "crossed %", "alike %", "answer %")

SHARDED = {0.1: (100, 50), 0.5: (200, 100), 1.0: (400, 200)}
"""Images asked and answered at most of `sharded`, by the least epsilon that they suit: as many as
leave a vote's noise well below its 1,000 teachers."""

Found = dict[Way, dict[int, Result]]


def ways(
    mechanisms: Sequence[str], students: Sequence[str], epsilons: Sequence[float] = EPSILONS
) -> list[list[Way]]:
    """All that is measured: lists of ways that differ in the student alone."""
    found = []
    for trust in ("secagg", "none"):
        for epsilon in epsilons:
            faint = epsilon < 0.5
            cells, partitions = (300, 1) if faint else (400, 8)
            queries, answers_at_most = _asked_of_shards(epsilon)
            for mechanism in mechanisms:
                if trust == "secagg" and mechanism in ALONE:
                    continue
                way = Way(
                    mechanism=mechanism,
                    trust=trust,
                    epsilon=epsilon,
                    # Neighbours are worth more than a faint answer, and less than a clear one.
                    spread=faint or mechanism != "corrections",
                    student="",
                    rounds=1 if mechanism != "corrections" else 10 if faint else 40,
                    cells=cells,
                    partitions=partitions,
                    queries=queries,
                    answers_at_most=answers_at_most,
                )
                found.append([replace(way, student=student) for student in students])
    return found


def _asked_of_shards(epsilon: float) -> tuple[int, int]:
    """The entry of `SHARDED` for this epsilon."""
    suited = [least for least in SHARDED if least <= epsilon]
    return SHARDED[max(suited, default=min(SHARDED))]


def make_encoders(seeds: int, jobs: int, settings: Settings, console: Console) -> None:
    """One a seed, unless it is there."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(make_encoder, seed, settings) for seed in range(seeds)]
        for task in track(as_completed(tasks), "encoders", total=len(tasks), console=console):
            task.result()


def measure_all(
    together: Sequence[list[Way]], seeds: int, jobs: int, settings: Settings, console: Console
) -> Iterator[tuple[int, dict[Way, Result]]]:
    """Every way with every seed, in the order in which they end."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        asked = {
            pool.submit(measure_each, seed, each, settings): seed
            for seed in range(seeds)
            for each in together
        }
        for each in track(as_completed(asked), "students", total=len(asked), console=console):
            yield asked[each], each.result()


def measure_each(seed: int, each: Sequence[Way], settings: Settings) -> dict[Way, Result]:
    """Students that learn from one answer."""
    return {way: measure(seed, way, settings) for way in each}


def results_table(found: Found) -> Table:
    """Means over the seeds, with the standard error of the accuracy."""
    table = Table("trust", "epsilon", "mechanism", "student", *MEASURES, box=None)
    for way, by_seed in found.items():
        runs = by_seed.values()
        table.add_row(
            way.trust,
            f"{way.epsilon:g}",
            way.mechanism,
            way.student,
            shown([each.accuracy for each in runs]),
            shown([each.public for each in runs]),
            shown([each.agreement for each in runs]),
            shown([each.crossed for each in runs if each.crossed is not None]),
            shown(alike([each.says for each in runs])),
            shown([each.answered for each in runs]),
        )
    return table


def alike(said: Sequence[str]) -> list[float]:
    """Share of public images of which two seeds' students say the same, of each pair of seeds."""
    says = [np.array(list(each)) for each in said]
    return [float((one == other).mean()) for one, other in itertools.combinations(says, 2)]


def published_table() -> Table:
    """What others state."""
    table = Table("published", "epsilon", "accuracy %", "", box=None)
    for name, epsilon, percent, remark in PUBLISHED:
        table.add_row(name, f"{epsilon:g}", f"{percent:.1f}", remark)
    return table


def shown(shares: list[float]) -> str:
    """Mean in percent and, of more than one, its standard error."""
    percent = 100 * np.array(shares)
    if not len(percent):
        return ""
    if len(percent) == 1:
        return f"{percent[0]:.2f}"
    return f"{percent.mean():.2f} ± {percent.std(ddof=1) / np.sqrt(len(percent)):.2f}"


def write(path: Path, found: Found, settings: Settings, seconds: float) -> None:
    """All runs as JSON."""
    runs = [
        {**asdict(way), "seed": seed, **asdict(result)}
        for way, by_seed in found.items()
        for seed, result in sorted(by_seed.items())
    ]
    device = torch.cuda.get_device_name() if settings.device == "cuda" else "cpu"
    content = {
        "settings": {name: str(value) for name, value in asdict(settings).items()},
        "torch": torch.__version__,
        "device": device,
        "seconds": seconds,
        "runs": runs,
    }
    path.write_text(json.dumps(content, indent=1))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of mnist.npz")
    parser.add_argument("--seeds", type=int, default=5, help="encoders, noises and students")
    parser.add_argument("--epochs", type=int, default=800, help="of the encoder")
    parser.add_argument("--student-epochs", type=int, default=0, help="of each student")
    parser.add_argument("--mechanisms", nargs="+", default=MECHANISMS, choices=MECHANISMS)
    parser.add_argument("--epsilons", nargs="+", type=float, default=EPSILONS)
    parser.add_argument("--students", nargs="+", default=["crossed"], choices=list(STUDENTS))
    parser.add_argument("--honest", type=int, default=NUM_SITES - 1, help="sites that keep noise")
    parser.add_argument("--encoder-jobs", type=int, default=5, help="encoders side by side")
    parser.add_argument("--jobs", type=int, default=12, help="students side by side")
    parser.add_argument("--limit", type=int, default=10**9, help="images of each part, for a try")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU, if there is one")
    parser.add_argument("--encoders", type=Path, help="folder that keeps the encoders")
    parser.add_argument("--joined", type=int, default=1, help="encoders side by side as one")
    parser.add_argument("--results", type=Path, help="JSON file of all runs")
    arguments = parser.parse_args()
    # One thread a process: there are as many processes as cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    console, begun = Console(highlight=False, width=120), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            file=arguments.data_dir / "mnist.npz",
            encoders=arguments.encoders or Path(folder),
            epochs=arguments.epochs,
            student_epochs=arguments.student_epochs,
            honest=arguments.honest,
            device=arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            limit=arguments.limit,
            joined=arguments.joined,
        )
        settings.encoders.mkdir(parents=True, exist_ok=True)
        make_encoders(arguments.seeds, arguments.encoder_jobs, settings, console)
        together = ways(arguments.mechanisms, arguments.students, arguments.epsilons)
        found: Found = {way: {} for each in together for way in each}
        for seed, results in measure_all(
            together, arguments.seeds, arguments.jobs, settings, console
        ):
            for way, result in results.items():
                found[way][seed] = result
            if arguments.results:
                write(arguments.results, found, settings, time.monotonic() - begun)
    console.print(results_table(found))
    console.print(published_table())


if __name__ == "__main__":
    main()
