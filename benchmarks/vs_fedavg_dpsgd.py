"""fedistill against FedAvg with DP-SGD, side by side on the same split.

    pip install 'fedistill[bench]'
    python -m benchmarks.vs_fedavg_dpsgd --data-dir DIR

DIR holds `thyroid.npz`, `heart4.npz`, `uci_credit.npz` and `adult.npz` (X, y, features). Every
method sees the split of `fedistill.data`, dealt to three sites as iid thirds, and costs each site
the same epsilon at delta 1e-5, record level, add/remove adjacency.

The baseline is Flower's FedAvg and Opacus as a user would join them, over ten rounds, twice: on raw
columns (median-filled, standardised, missing flags) and on the public features that dp-probe
trains on. It is favoured where the two cannot be treated alike. Each variant is tuned for every
data set and epsilon over a list of settings; each is trained three times on the private rows and
scored on the proxy rows with their true labels, which our method never sees, and no epsilon is
charged for it. The lists were themselves picked on such scores. Sampling rates and the divisor of
the gradient use the true number of rows, which add/remove adjacency keeps secret.

Ours runs with its defaults everywhere; `benchmarks.probe_settings` shows how they were chosen.

Seeds reach weights and training, never noise. A finished row is kept in `--results` and not run
again while its code and data stay the same.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.progress import Progress, TimeElapsedColumn

from benchmarks.baselines import comparison
from benchmarks.baselines.comparison import Cell
from benchmarks.baselines.inputs import VARIANTS
from benchmarks.baselines.rows import CENTRAL, LOCAL, OURS, Result, Row, line, read
from benchmarks.baselines.settings import SETTINGS

DATASETS = "thyroid", "heart4", "uci_credit", "adult"
EPSILONS = 0.5, 1.0, 2.0
TUNING_SEEDS = 1_000, 1_001, 1_002

Run = Callable[[Sequence[Row]], dict[Row, Result]]


def measure(row: Row, data: Path) -> Result:
    """Make one run, in a process that uses one core."""
    import torch

    from benchmarks.baselines.methods import METHODS

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    table = data / f"{row.dataset}.npz"
    return fedavg(row, table) if row.method in VARIANTS else METHODS[row.method](row, table)


def fedavg(row: Row, table: Path) -> Result:
    """FedAvg with DP-SGD at one setting."""
    from benchmarks.baselines.fedavg_dpsgd import train
    from benchmarks.baselines.inputs import load_inputs

    inputs, setting = load_inputs(table, row.method), SETTINGS[row.method][row.setting]
    trained = train(inputs, setting, epsilon=row.epsilon, seed=row.seed)
    return Result(
        row=row,
        auc=trained.auc(inputs.proxy if row.tuning else inputs.test),
        bytes_up=trained.bytes_up,
        seconds=trained.seconds,
    )


def compare(dataset: str, epsilons: Sequence[float], seeds: int, run: Run) -> list[Cell]:
    """All rows of a data set: first those that depend on no choice, then FedAvg's chosen ones."""

    def rows(method: str, epsilon: float, setting: int = -1) -> list[Row]:
        return [
            Row(dataset=dataset, method=method, epsilon=epsilon, seed=seed, setting=setting)
            for seed in range(seeds)
        ]

    def trials(variant: str, epsilon: float, setting: int) -> list[Row]:
        return [
            Row(
                dataset=dataset,
                method=variant,
                epsilon=epsilon,
                seed=seed,
                setting=setting,
                tuning=True,
            )
            for seed in TUNING_SEEDS
        ]

    def score(variant: str, epsilon: float, setting: int) -> float:
        return sum(results[row].auc for row in trials(variant, epsilon, setting))

    pooled = Row(dataset=dataset, method=CENTRAL, epsilon=0.0, seed=0)
    pairs = [(variant, epsilon) for variant in VARIANTS for epsilon in epsilons]
    free = [
        row for method in (OURS, LOCAL) for epsilon in epsilons for row in rows(method, epsilon)
    ]
    tried = [
        row
        for variant, epsilon in pairs
        for setting in range(len(SETTINGS[variant]))
        for row in trials(variant, epsilon, setting)
    ]
    results = run([pooled, *free, *tried])
    chosen = {
        pair: rows(*pair, max(range(len(SETTINGS[pair[0]])), key=partial(score, *pair)))
        for pair in pairs
    }
    results |= run([row for pair in pairs for row in chosen[pair]])

    def found(wanted: Iterable[Row]) -> tuple[Result, ...]:
        return tuple(results[row] for row in wanted)

    return [
        Cell(
            dataset=dataset,
            epsilon=epsilon,
            central=results[pooled].auc,
            local=found(rows(LOCAL, epsilon)),
            raw=found(chosen["raw", epsilon]),
            features=found(chosen["features", epsilon]),
            ours=found(rows(OURS, epsilon)),
        )
        for epsilon in epsilons
    ]


def number_of_rows(num_epsilons: int, seeds: int) -> int:
    """Rows of one data set."""
    tried = len(TUNING_SEEDS) * sum(len(SETTINGS[variant]) for variant in VARIANTS)
    return 1 + num_epsilons * (seeds * (2 + len(VARIANTS)) + tried)


def main() -> None:
    """Make the rows that are missing, print the tables and the verdict."""
    arguments = parse()
    results = read(arguments.results, arguments.data_dir)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    total = number_of_rows(len(arguments.epsilons), arguments.seeds) * len(arguments.datasets)
    cells = []
    with (
        ProcessPoolExecutor(arguments.jobs) as pool,
        arguments.results.open("a") as kept,
        Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as bar,
    ):
        task = bar.add_task("", total=total)

        def run(rows: Sequence[Row]) -> dict[Row, Result]:
            missing = [row for row in rows if row not in results]
            bar.advance(task, len(rows) - len(missing))
            for result in pool.map(partial(measure, data=arguments.data_dir), missing):
                results[result.row] = result
                kept.write(line(result, arguments.data_dir))
                kept.flush()
                bar.advance(task)
            return {row: results[row] for row in rows}

        for dataset in arguments.datasets:
            bar.update(task, description=dataset)
            cells += compare(dataset, arguments.epsilons, arguments.seeds, run)
    text = "\n\n".join(
        (
            comparison.NOTES,
            comparison.quality_table(cells),
            comparison.verdict(cells),
            comparison.cost_table(cells),
        )
    )
    print(f"\n{text}")
    if arguments.write_readme:
        comparison.write_between_markers(arguments.write_readme, comparison.short_table(cells))
    if arguments.write_page:
        comparison.write_between_markers(arguments.write_page, text)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of npz tables")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("build/benchmarks/vs_fedavg_dpsgd.jsonl"),
        help="kept rows",
    )
    markers = "Markdown file that holds the markers"
    parser.add_argument("--write-readme", type=Path, help=f"{markers}, for the short table")
    parser.add_argument("--write-page", type=Path, help=f"{markers}, for everything")
    return parser.parse_args()


if __name__ == "__main__":
    main()
