"""How the settings of dp-probe were chosen: a sweep that never sees a test row.

    python -m benchmarks.probe_settings --data-dir DIR

Validation rows are cut from the private rows; three iid sites hold the rest. For every setting it
prints the AUC of the denoised target at each epsilon, mean of the repeats; noise is fresh in each.
DIR may hold further data sets as npz (X, y); credit_default ships with the package.
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedistill.data import LabelledRows, ProxySet, load_table, partition_rows, split_table
from fedistill.distill import target
from fedistill.evaluate.metrics import auc
from fedistill.features import main_effects, proxy_basis
from fedistill.federation.simulation import ROWS_AT_LEAST
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import dp_probe, probe_rounds, probe_steps

EPSILONS = 0.5, 1.0, 2.0
SITES = "site_0", "site_1", "site_2"
CHOSEN = {
    "clip": 0.7,
    "steps": 0,
    "step": 1.0,
    "ridge": 2.83,
    "model_error": 2.0,
    "power": -1.0,
    "thermometer": -1.0,
}
"""The shipped values; every other row of the table changes one of them.

`steps` are the noised sums; `power` is that of the eigenvalue in the prior; `thermometer` is the
weight of the thermometer codes, where z-scores have 1. 0 steps, and -1, are the shipped rules.
"""

CHANGES: tuple[dict[str, float], ...] = (
    {},
    {"clip": 0.42},
    {"clip": 1.0},
    {"steps": 2},
    {"steps": 3},
    {"steps": 4},
    {"steps": 6},
    {"steps": 10},
    {"step": 0.7},
    {"step": 1.3},
    {"ridge": 1.41},
    {"ridge": 4.24},
    {"model_error": 1.0},
    {"model_error": 3.0},
    {"power": 0.0},
    {"power": 0.5},
    {"thermometer": 0.0},
    {"thermometer": 1.0},
    {"steps": 6, "model_error": 3.0, "power": 0.0},
)

Cut = tuple[ProxySet, list[LabelledRows], LabelledRows]


def validation_auc(
    rows: Cut, epsilon: float, setting: dict[str, float], solver: str = "combined"
) -> float:
    """AUC of the denoised target on validation rows, for one draw of the noise."""
    proxy, sites, validation = rows
    question = LabelQuestion(
        mechanism="dp-probe",
        epsilon=epsilon,
        delta=1e-5,
        solver=solver,
        probe_steps=int(setting["steps"]),
        num_classes=validation.num_classes,
        proxy_sha256=proxy.sha256,
    )
    powers = (setting["power"],) if setting["power"] >= 0 else target.POWERS
    fixed = setting["thermometer"]
    map_rule: dict[str, Any] = {
        "_MOST_THERMOMETER_VARIANCE": fixed,
        "distance_from_normal": lambda values: np.inf,
    }
    import_module("fedistill.features.proxy_basis")._bases.clear()
    with (
        patch.multiple(main_effects, **map_rule) if fixed >= 0 else nullcontext(),
        patch.multiple(probe_rounds, CLIP=setting["clip"]),
        patch.multiple(probe_steps, STEP_SIZE=setting["step"], RIDGE_PER_NOISE=setting["ridge"]),
        patch.multiple(target, MODEL_ERROR=setting["model_error"], POWERS=powers),
    ):
        mechanism = dp_probe.DPProbe()
        plan = mechanism.plan(question, proxy, rows_at_least=ROWS_AT_LEAST)
        releases = [mechanism.release(rows, proxy, plan)[0] for rows in sites]
        responses = [mechanism.response(question, release, proxy) for release in releases]
        ensemble = target.build_ensemble(
            releases, responses, proxy_basis(proxy), weights="agreement"
        )
    return auc(probabilities(ensemble.label(validation.rows)), validation.labels) or 0.5


def cut(dataset: str, *, site_column: str = "") -> Cut:
    """Proxy set, sites and validation rows; the test rows are dropped unseen.

    Args:
        dataset: A shipped name, or a path.
        site_column: Whose row it is; without one, three sites share the rows at random.
    """
    table = load_table(dataset, site_column=site_column)
    split = split_table(table, proxy_fraction=0.2, test_fraction=0.15)
    order = np.random.default_rng(9).permutation(len(split.private.rows))
    size = len(split.test.rows)
    whose = split.private_site and tuple(split.private_site[i] for i in order[size:])
    parts = partition_rows(
        split.private.take(order[size:]), "iid", () if whose else SITES, site_of_row=whose
    )
    sites = [rows for rows in parts.values() if (rows.labels >= 0).sum() >= ROWS_AT_LEAST]
    return split.proxy, sites, split.private.take(order[:size])


def datasets(folder: Path | None) -> Iterator[str]:
    """The shipped set, and every npz table in `folder`."""
    yield "credit_default"
    for path in sorted(folder.glob("*.npz")) if folder else ():
        with np.load(path) as archive:
            if "X" in archive and path.stem != "uci_credit":
                yield str(path.resolve())


def main() -> None:
    """Print the table of settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, help="folder of further npz data sets")
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    for dataset in datasets(arguments.data_dir):
        rows = cut(dataset)
        table = Table(title=f"{Path(dataset).stem}: validation AUC of the target, by epsilon")
        for column in ("setting", *(f"{epsilon:g}" for epsilon in EPSILONS)):
            table.add_column(column)
        for change in track(CHANGES, description=Path(dataset).stem):
            scores = [
                np.mean(
                    [
                        validation_auc(rows, epsilon, CHOSEN | change)
                        for _ in range(arguments.repeats)
                    ]
                )
                for epsilon in EPSILONS
            ]
            name = " ".join(f"{key}={value:g}" for key, value in change.items()) or "as shipped"
            table.add_row(name, *(f"{score:.4f}" for score in scores))
        Console().print(table)


if __name__ == "__main__":
    main()
