"""What weighing sites by agreement changes against equal weights, on rows no test ever sees.

    python -m benchmarks.ensemble_weights --data-dir DIR

Validation rows are cut from the private rows, and the test rows are dropped unseen. Both weightings
average the same releases, so their difference is paired; noise is fresh in each repeat. DIR holds
the npz files thyroid and heart4 (X, y, features, silo); credit_default ships with the package.
"""

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from fedistill.data import LabelledRows, ProxySet, load_table, partition_rows, split_table
from fedistill.distill.target import build_ensemble
from fedistill.evaluate.metrics import score
from fedistill.features import proxy_basis
from fedistill.federation.simulation import ROWS_AT_LEAST
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import mechanism_named

WEIGHTINGS = "uniform", "agreement"
SITES = "site_0", "site_1", "site_2"
BY_SITE = "by site"
PARTITIONS = {
    "credit_default": ("iid", "quantile:LIMIT_BAL", "dirichlet:0.3"),
    "thyroid.npz": ("iid", BY_SITE, "dirichlet:0.3"),
    "heart4.npz": ("iid", BY_SITE),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One table, one way to deal its rows to sites, one epsilon."""

    dataset: str
    partition: str
    epsilon: float


def measure(case: Case) -> dict[str, tuple[float, float]]:
    """Validation AUC and log loss of the denoised target, by weighting, for one draw of noise."""
    proxy, sites, validation = cut(case)
    question = LabelQuestion(
        mechanism="dp-probe",
        epsilon=case.epsilon,
        delta=1e-5,
        num_classes=validation.num_classes,
        proxy_sha256=proxy.sha256,
    )
    mechanism, basis = mechanism_named("dp-probe"), proxy_basis(proxy)
    plan = mechanism.plan(question, proxy, rows_at_least=ROWS_AT_LEAST)
    releases = [mechanism.release(rows, proxy, plan)[0] for rows in sites]
    responses = [mechanism.response(question, release, proxy) for release in releases]
    found = {}
    for weighting in WEIGHTINGS:
        ensemble = build_ensemble(releases, responses, basis, weights=weighting)
        scores = score(probabilities(ensemble.label(validation.rows)), validation.labels)
        found[weighting] = (scores.auc or 0.5, scores.log_loss or 0.0)
    return found


def cut(
    case: Case, *, names: tuple[str, ...] = SITES
) -> tuple[ProxySet, list[LabelledRows], LabelledRows]:
    """Proxy set, sites and validation rows; the test rows are dropped unseen."""
    by_site = case.partition == BY_SITE
    table = load_table(case.dataset, site_column="silo" if by_site else "")
    split = split_table(table, proxy_fraction=0.2, test_fraction=0.15)
    order = np.random.default_rng(9).permutation(len(split.private.rows))
    held, kept = order[: len(split.test.rows)], order[len(split.test.rows) :]
    owners = split.private_site and tuple(split.private_site[row] for row in kept)
    parts = partition_rows(
        split.private.take(kept), "iid" if by_site else case.partition, names, site_of_row=owners
    )
    sites = [rows for rows in parts.values() if len(rows.rows) >= ROWS_AT_LEAST]
    return split.proxy, sites, split.private.take(held)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    arguments = parser.parse_args()
    folder = arguments.data_dir.resolve()
    cases = [
        Case(
            dataset=name if name == "credit_default" else str(folder / name),
            partition=partition,
            epsilon=epsilon,
        )
        for name, partitions in PARTITIONS.items()
        for partition in partitions
        for epsilon in arguments.epsilons
    ]
    repeated = [case for case in cases for _ in range(arguments.repeats)]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        found = list(track(pool.map(measure, repeated), total=len(repeated)))
    print(table(cases, found, arguments.repeats))


def table(cases: list[Case], found: list[dict[str, tuple[float, float]]], repeats: int) -> str:
    """Markdown: means over repeats, and the paired difference with its standard error."""
    lines = [
        "| data set | sites | epsilon | uniform | agreement | agreement - uniform | log loss "
        "uniform | log loss agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, case in enumerate(cases):
        rows = found[number * repeats : (number + 1) * repeats]
        auc = {name: [row[name][0] for row in rows] for name in WEIGHTINGS}
        loss = {name: statistics.mean(row[name][1] for row in rows) for name in WEIGHTINGS}
        gains = [a - u for a, u in zip(auc["agreement"], auc["uniform"], strict=True)]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        cells = (
            Path(case.dataset).stem,
            case.partition,
            f"{case.epsilon:g}",
            *(f"{statistics.mean(auc[name]):.4f}" for name in ("uniform", "agreement")),
            f"{statistics.mean(gains):+.4f} ± {error:.4f}",
            *(f"{loss[name]:.3f}" for name in ("uniform", "agreement")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
