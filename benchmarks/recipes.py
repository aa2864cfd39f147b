"""What each preset's student scores beside the training that runs without a recipe.

    python -m benchmarks.recipes --data-dir DIR

Validation rows are cut from the private rows, and the test rows are dropped unseen. In each repeat
all recipes learn the same releases from the same seed, so differences are paired; noise is fresh in
each. DIR holds the npz files thyroid and adult (X, y, features); credit_default ships with the
package. `four-term` is left out: it needs a public teacher.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.ensemble_weights import Case, cut
from fedistill.config_rules import RECIPES
from fedistill.distill.recipes import load_recipe
from fedistill.distill.students import predict_probabilities
from fedistill.distill.target import build_ensemble
from fedistill.distill.training import Learning, distil
from fedistill.evaluate.metrics import score
from fedistill.features import proxy_basis
from fedistill.federation.simulation import ROWS_AT_LEAST
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import mechanism_named

DATASETS = "thyroid.npz", "adult.npz", "credit_default"
COMPARED = ("auto", *(name for name in RECIPES[1:] if not load_recipe(name).white_box))
TARGET = "target"


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """One draw of noise on one table."""

    case: Case
    seed: int
    recipes: tuple[str, ...]


def measure(repeat: Repeat) -> dict[str, tuple[float, float]]:
    """Validation AUC and seconds of training, by recipe; of the target too."""
    torch.set_num_threads(1)
    proxy, sites, validation = cut(repeat.case)
    question = LabelQuestion(
        mechanism="dp-probe",
        epsilon=repeat.case.epsilon,
        delta=1e-5,
        num_classes=validation.num_classes,
        proxy_sha256=proxy.sha256,
    )
    mechanism = mechanism_named("dp-probe")
    plan = mechanism.plan(question, proxy, rows_at_least=ROWS_AT_LEAST)
    releases = [mechanism.release(rows, proxy, plan)[0] for rows in sites]
    responses = [mechanism.response(question, release, proxy) for release in releases]
    ensemble = build_ensemble(releases, responses, proxy_basis(proxy))
    said = score(probabilities(ensemble.label(validation.rows)), validation.labels)
    found = {TARGET: (said.auc or 0.5, 0.0)}
    for recipe in repeat.recipes:
        start = time.perf_counter()
        student = distil(proxy, ensemble, Learning(recipe=recipe), seed=repeat.seed)
        seconds = time.perf_counter() - start
        scored = score(predict_probabilities(student, validation.rows), validation.labels)
        found[recipe] = (scored.auc or 0.5, seconds)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--recipes", nargs="+", default=list(COMPARED))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    arguments = parser.parse_args()
    folder = arguments.data_dir.resolve()
    repeats = [
        Repeat(
            case=Case(
                dataset=str(folder / name) if name.endswith(".npz") else name,
                partition="iid",
                epsilon=arguments.epsilon,
            ),
            seed=seed,
            recipes=tuple(arguments.recipes),
        )
        for name in arguments.datasets
        for seed in range(arguments.repeats)
    ]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        found = list(track(pool.map(measure, repeats), total=len(repeats)))
    print(table(arguments.datasets, arguments.recipes, found))


def table(
    datasets: Sequence[str],
    recipes: Sequence[str],
    found: Sequence[dict[str, tuple[float, float]]],
) -> str:
    """Markdown: mean AUC over repeats, and the paired difference to the first recipe."""
    first, repeats = recipes[0], len(found) // len(datasets)
    lines = [f"| data set | recipe | AUC | less `{first}` | seconds |", "|---|---|---|---|---|"]
    for place, dataset in enumerate(datasets):
        rows = found[place * repeats : (place + 1) * repeats]
        for name in (TARGET, *recipes):
            auc = [row[name][0] for row in rows]
            gains = [row[name][0] - row[first][0] for row in rows]
            error = statistics.stdev(gains) / repeats**0.5 if repeats > 1 else 0.0
            less = "" if name == first else f"{statistics.mean(gains):+.4f} ± {error:.4f}"
            seconds = statistics.mean(row[name][1] for row in rows)
            cells = Path(dataset).stem, name, f"{statistics.mean(auc):.4f}", less, f"{seconds:.0f}"
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
