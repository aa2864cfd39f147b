"""What three sites' student scores on credit_default, by epsilon and partition.

    python -m benchmarks.banks

Every row is a whole run, without secure aggregation: real messages, ledgers and releases with fresh
noise, in one process. Scores are of the shipped file on the fixed public test split. Seeds reach
training only; between two runs the noise differs too. A finished row is kept in `--results` and not
run again.
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
TARGETS = {0.5: 0.758, 1.0: 0.763, 2.0: 0.766}


@dataclass(frozen=True, kw_only=True, order=True)
class Row:
    """One run to make."""

    partition: str
    epsilon: float
    seed: int


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
                "dataset": "credit_default",
                "secure-aggregation": False,
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
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(TARGETS))
    parser.add_argument("--partitions", nargs="+", default=list(PARTITIONS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument(
        "--results", type=Path, default=Path("build/benchmarks/banks.jsonl"), help="kept rows"
    )
    arguments = parser.parse_args()
    rows = [
        Row(partition=partition, epsilon=epsilon, seed=seed)
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
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        groups.setdefault((result.row.partition, result.row.epsilon), []).append(result)
    lines = [
        "| partition | epsilon | asked | shipped file | central, not private "
        "| shipped - central | shipped - target | bytes up a site |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (partition, epsilon), group in groups.items():
        asked = TARGETS.get(epsilon) if partition == "iid" else None
        cells = (
            partition,
            f"{epsilon:g}",
            f"{asked:.3f}" if asked else "",
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
