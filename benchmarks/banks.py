"""What three sites' student scores on credit_default, by epsilon and partition.

    python -m benchmarks.banks
    python -m benchmarks.banks --trust secagg --partitions iid --data-dir DIR \\
        --sets credit_default thyroid adult

Every row is a whole run: real messages, ledgers and releases with fresh noise, in one process.
`--trust none` is without secure aggregation, each site with noise of its own; with `--trust secagg`
the server sees sums of `corrections`, and the sites share one portion of noise. Scores are of the
shipped file on the fixed public test split. Seeds reach training only; between two runs the noise
differs too. A finished row is kept in `--results` and not run again.
"""

import argparse
import hashlib
import json
import logging
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import Progress, TimeElapsedColumn

import fedistill

PARTITIONS = ("iid", "quantile:LIMIT_BAL")
SHIPPED = "credit_default"
EPSILONS = (0.5, 1.0, 2.0)
TARGETS = {
    ("credit_default", "none"): {0.5: 0.758, 1.0: 0.763, 2.0: 0.766},
    ("credit_default", "secagg"): {0.5: 0.765, 1.0: 0.768, 2.0: 0.769},
    ("thyroid", "secagg"): {0.5: 0.925, 1.0: 0.935, 2.0: 0.945},
    ("adult", "secagg"): {0.5: 0.907, 1.0: 0.908, 2.0: 0.909},
}
"""Figures asked for: the shipped file's with `none`, the target's with `secagg`; thirds, iid."""
SHARING: dict[str, dict[str, bool | str]] = {
    "none": {"secure-aggregation": False},
    "secagg": {"trust": "secagg", "mechanism": "corrections"},
}


@dataclass(frozen=True, kw_only=True, order=True)
class Row:
    """One run to make."""

    partition: str
    epsilon: float
    seed: int
    dataset: str = SHIPPED
    trust: str = "none"

    @property
    def set_name(self) -> str:
        """The data set without its folder."""
        return Path(self.dataset).stem


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run scored (AUC on the test split), sent and took."""

    row: Row
    student: float
    student_fp32: float
    ensemble: float
    central: float
    shipped: str
    bytes_up: int
    seconds: float


def measure(row: Row) -> Result:
    """Make one run in a folder of its own."""
    import torch

    torch.set_num_threads(1)
    from fedistill.config import RunConfig
    from fedistill.federation.client_app import app
    from fedistill.federation.local_grid import LocalGrid
    from fedistill.federation.progress import Progress as Silent
    from fedistill.federation.run_folder import run_folder
    from fedistill.federation.up_front import prepare
    from fedistill.federation.workflow import run_workflow

    logging.getLogger("flwr").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig.from_flat(
            {
                "dataset": row.dataset,
                **SHARING[row.trust],
                "site-names": "bank_a,bank_b,bank_c",
                "partition": row.partition,
                "epsilon": row.epsilon,
                "seed": row.seed,
                "output-dir": f"{folder}/run",
            }
        )
        start = time.monotonic()
        summary = run_workflow(
            LocalGrid(app, config.to_flat()),
            config,
            prepare(config),
            run_folder(config, "1"),
            run="1",
            progress=Silent(),
        )
        metrics, reference = summary.metrics, summary.metrics.central_reference
        stage = summary.shipped_stage
        return Result(
            row=row,
            student=metrics.student.auc or 0.0,
            student_fp32=metrics.student_fp32.auc or 0.0,
            ensemble=metrics.ensemble.auc or 0.0,
            central=(reference.auc if reference else None) or 0.0,
            shipped=f"{stage.stage} {stage.precision}" if stage else "",
            bytes_up=max(site.bytes_up for site in summary.wire.sites.values()),
            seconds=round(time.monotonic() - start, 1),
        )


def main() -> None:
    """Make the rows that are missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--partitions", nargs="+", default=list(PARTITIONS))
    parser.add_argument("--trust", choices=SHARING, default="none")
    parser.add_argument("--data-dir", type=Path, help="folder of npz files, for sets not shipped")
    parser.add_argument("--sets", nargs="+", default=[SHIPPED])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument(
        "--results", type=Path, default=Path("build/benchmarks/banks.jsonl"), help="kept rows"
    )
    arguments = parser.parse_args()
    if arguments.data_dir is None and arguments.sets != [SHIPPED]:
        parser.error(f"--sets={' '.join(arguments.sets)}: all but {SHIPPED} need --data-dir")
    rows = [
        Row(
            partition=partition,
            epsilon=epsilon,
            seed=seed,
            dataset=name if name == SHIPPED else str(arguments.data_dir.absolute() / f"{name}.npz"),
            trust=arguments.trust,
        )
        for name in arguments.sets
        for partition in arguments.partitions
        for epsilon in arguments.epsilons
        for seed in range(arguments.seeds)
    ]
    code = code_sha256()
    results = read(arguments.results, code)
    missing = [row for row in rows if row not in results]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(arguments.jobs) as pool,
        arguments.results.open("a") as kept,
        Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as bar,
    ):
        for result in bar.track(pool.map(measure, missing), total=len(missing)):
            results[result.row] = result
            kept.write(json.dumps(asdict(result) | {"code": code}) + "\n")
            kept.flush()
    print(f"\nAUC on the public test split, mean of {arguments.seeds} seeds ± standard error\n")
    print(table([results[row] for row in rows]))


def read(path: Path, code: str) -> dict[Row, Result]:
    """Rows of an earlier call with the same code."""
    lines = path.read_text().splitlines() if path.exists() else []
    values = [value for value in map(json.loads, lines) if value.pop("code", "") == code]
    return {Row(**v["row"]): Result(**{**v, "row": Row(**v["row"])}) for v in values}


def code_sha256() -> str:
    """Hash of the package's source: a change of it makes every row anew."""
    files = sorted(Path(fedistill.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def table(results: list[Result]) -> str:
    """Markdown: means over seeds, and paired differences to the reference and the target."""
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for result in results:
        row = result.row
        groups.setdefault((row.set_name, row.partition, row.epsilon), []).append(result)
    lines = [
        "| data | partition | epsilon | asked | target | shipped file | central, not private "
        "| shipped - central | shipped - target | bytes up a site |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, partition, epsilon), group in groups.items():
        targets = TARGETS.get((name, group[0].row.trust), {}) if partition == "iid" else {}
        cells = (
            name,
            partition,
            f"{epsilon:g}",
            f"{targets[epsilon]:.3f}" if epsilon in targets else "",
            spread([result.ensemble for result in group]),
            spread([result.student for result in group]),
            f"{group[0].central:.4f}",
            spread([result.student - result.central for result in group]),
            spread([result.student - result.ensemble for result in group]),
            f"{max(result.bytes_up for result in group):,}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and standard error of the mean."""
    if len(values) < 2:
        return f"{values[0]:.4f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
