"""How the settings of dp-probe were chosen: a sweep that never sees a test row.

    python -m benchmarks.probe_settings --data-dir DIR

Validation rows are cut from the private rows; three iid sites hold the rest. For every setting it
prints the AUC of the denoised target at each epsilon, mean of the repeats; noise is fresh in each.
DIR may hold further data sets as npz (X, y); credit_default ships with the package.
"""

import argparse
from collections.abc import Iterator
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
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import dp_probe

EPSILONS = 0.5, 1.0, 2.0
SITES = "site_0", "site_1", "site_2"
CHOSEN = {
    "clip": 0.7,
    "steps": 6,
    "step": 1.0,
    "ridge": 2.83,
    "model_error": 3.0,
    "thermometer": -1.0,
}
"""The shipped values; every other row of the table changes one of them.

`thermometer` is the weight of the thermometer codes, z-scores have 1; -1 is the shipped rule.
"""

CHANGES: tuple[dict[str, float], ...] = (
    {},
    {"clip": 0.42},
    {"clip": 1.0},
    {"steps": 4},
    {"steps": 8},
    {"steps": 16},
    {"step": 0.7},
    {"ridge": 1.41},
    {"ridge": 4.24},
    {"model_error": 0.0},
    {"model_error": 1.0},
    {"thermometer": 0.0},
    {"thermometer": 0.3},
    {"thermometer": 1.0},
    {"clip": 0.42, "steps": 8, "step": 0.7, "ridge": 4.24, "model_error": 0.0},
)


def validation_auc(dataset: str, epsilon: float, setting: dict[str, float]) -> float:
    """AUC of the denoised target on validation rows, for one draw of the noise."""
    proxy, sites, validation = cut(dataset)
    question = LabelQuestion(
        mechanism="dp-probe",
        epsilon=epsilon,
        delta=1e-5,
        probe_steps=int(setting["steps"]),
        num_classes=validation.num_classes,
        proxy_sha256=proxy.sha256,
    )
    clip = int(setting["clip"] / dp_probe._GRADIENT_STEP)
    fixed = setting["thermometer"]
    map_rule: dict[str, Any] = {
        "_MOST_THERMOMETER_VARIANCE": fixed,
        "distance_from_normal": lambda values: np.inf,
    }
    import_module("fedistill.features.proxy_basis")._bases.clear()
    with (
        patch.multiple(main_effects, **(map_rule if fixed >= 0 else {})),
        patch.multiple(dp_probe, CLIP=setting["clip"], _CLIP_INTEGER=clip),
        patch.multiple(dp_probe, STEP_SIZE=setting["step"], RIDGE_PER_NOISE=setting["ridge"]),
        patch.multiple(target, MODEL_ERROR=setting["model_error"]),
    ):
        mechanism = dp_probe.DPProbe()
        plan = mechanism.plan(question, proxy, rows_at_least=20)
        releases = [mechanism.release(rows, proxy, plan)[0] for rows in sites]
        responses = [mechanism.response(question, release, proxy) for release in releases]
        ensemble = target.build_ensemble(releases, responses, proxy_basis(proxy))
    return auc(probabilities(ensemble.label(validation.rows)), validation.labels) or 0.5


def cut(dataset: str) -> tuple[ProxySet, list[LabelledRows], LabelledRows]:
    """Proxy set, three iid sites and validation rows; the test rows are dropped unseen."""
    split = split_table(load_table(dataset), proxy_fraction=0.2, test_fraction=0.15)
    order = np.random.default_rng(9).permutation(len(split.private.rows))
    size = len(split.test.rows)
    sites = partition_rows(split.private.take(order[size:]), "iid", SITES)
    return split.proxy, list(sites.values()), split.private.take(order[:size])


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
        table = Table(title=f"{Path(dataset).stem}: validation AUC of the target, by epsilon")
        for column in ("setting", *(f"{epsilon:g}" for epsilon in EPSILONS)):
            table.add_column(column)
        for change in track(CHANGES, description=Path(dataset).stem):
            scores = [
                np.mean(
                    [
                        validation_auc(dataset, epsilon, CHOSEN | change)
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
