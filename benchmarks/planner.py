"""How good the planner's choice is, against the best mechanism measured on the real task.

    python -m benchmarks.planner --data-dir DIR

The planner sees the public proxy rows alone, once without labels and once with them. Then every
mechanism answers the private rows of iid thirds, and the regret is the score of the best one less
that of the planner's choice. DIR holds uci_credit, thyroid, adult, heart4 and mnist as npz files.
MNIST is seen as principal components fitted on its public rows: test images 0 to 8,999 are public,
the last 1,000 score, and the training images are private.
"""

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.baselines.inputs import proxy_labels, run_config
from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.distill.target import build_ensemble
from fedistill.evaluate.metrics import score
from fedistill.features import proxy_basis
from fedistill.federation.simulation import ROWS_AT_LEAST, prepare_data
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import mechanism_named
from fedistill.planner import Forecast, PublicRows, Request, forecast

SITES = 3
DELTA = 1e-5
COMPONENTS = 40
SETS = ("uci_credit", "thyroid", "adult", "heart4", "mnist")


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A real task: public rows with their labels, private rows by site, and rows that score."""

    public: PublicRows
    sites: tuple[LabelledRows, ...]
    test: LabelledRows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3, help="fresh noise on the real task")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each forecast")
    parser.add_argument("--site-rows", type=int, default=20_000, help="private rows at most")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| data set | planner saw | chosen | score | best measured | score | regret |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.sets:
        task = load_task(arguments.data_dir / f"{name}.npz", arguments.site_rows)
        forecasts = {
            "no labels": plan(task, arguments.epsilon, arguments.seconds, labels=False),
            "labels": plan(task, arguments.epsilon, arguments.seconds, labels=True),
        }
        names = dict.fromkeys(t.mechanism for found in forecasts.values() for t in found.trials)
        measured = {
            each: measure(task, each, arguments.epsilon, arguments.repeats) for each in names
        }
        for saw, found in forecasts.items():
            print(row(name, saw, found, measured), flush=True)


def row(name: str, saw: str, found: Forecast, measured: Mapping[str, float]) -> str:
    """A line of the table; where nothing is recommended, the leader stands in brackets."""
    best = max(measured, key=lambda each: measured[each])
    chosen = found.advice.mechanism or found.advice.leader
    shown = chosen if found.advice.mechanism else f"({chosen})"
    cells = [name, saw, shown, f"{measured[chosen]:.4f}"]
    cells += [best, f"{measured[best]:.4f}", f"{measured[best] - measured[chosen]:.4f}"]
    return f"| {' | '.join(cells)} |"


def plan(task: Task, epsilon: float, seconds: float, *, labels: bool) -> Forecast:
    """What the planner says of the public rows, with or without their labels."""
    public = PublicRows(
        rows=task.public.rows,
        labels=task.public.labels if labels else None,
        num_classes=task.public.num_classes,
        name=task.public.name,
    )
    rows = min(len(site.labels) for site in task.sites)
    request = Request(
        rows_at_least=rows, num_sites=SITES, epsilon=epsilon, delta=DELTA, seconds=seconds
    )
    return forecast(public, request)


def measure(task: Task, name: str, epsilon: float, repeats: int) -> float:
    """Mean AUC (two classes) or accuracy of the real ensemble on the test rows."""
    proxy, basis = task.public.rows, proxy_basis(task.public.rows)
    question = LabelQuestion(
        mechanism=name,
        epsilon=epsilon,
        delta=DELTA,
        num_classes=task.public.num_classes,
        proxy_sha256=proxy.sha256,
    )
    mechanism = mechanism_named(name)
    plan = mechanism.plan(question, proxy, rows_at_least=ROWS_AT_LEAST)
    found = []
    for _ in range(repeats):
        releases = [mechanism.release(rows, proxy, plan)[0] for rows in task.sites]
        responses = [mechanism.response(question, release, proxy) for release in releases]
        ensemble = build_ensemble(releases, responses, basis)
        scores = score(probabilities(ensemble.label(task.test.rows)), task.test.labels)
        two = task.public.num_classes == 2
        found.append((scores.auc if two else scores.accuracy) or 0.0)
    return statistics.mean(found)


def load_task(path: Path, site_rows: int) -> Task:
    """The task of an npz file."""
    if path.stem == "mnist":
        return _mnist(path, site_rows)
    simulation = prepare_data(run_config(path))
    public = PublicRows(
        rows=simulation.proxy,
        labels=proxy_labels(path, simulation),
        num_classes=len(simulation.table.classes),
        name=path.stem,
    )
    sites = (
        rows.take(np.arange(min(len(rows.labels), site_rows))) for rows in simulation.sites.values()
    )
    return Task(public=public, sites=tuple(sites), test=simulation.test)


def _mnist(path: Path, site_rows: int) -> Task:
    from sklearn.decomposition import PCA

    with np.load(path) as archive:
        images = {
            part: archive[part].reshape(len(archive[part]), -1) / 255.0
            for part in ("x_train", "x_test")
        }
        labels = {part: archive[part].astype(np.int64) for part in ("y_train", "y_test")}
    pca = PCA(COMPONENTS, random_state=0).fit(images["x_test"][:9_000])
    columns = tuple(f"pc{j}" for j in range(COMPONENTS))
    rows = {part: pca.transform(values).astype(np.float32) for part, values in images.items()}

    def labelled(values: np.ndarray, classes: np.ndarray) -> LabelledRows:
        return LabelledRows(columns=columns, rows=values, labels=classes, num_classes=10)

    train = labelled(rows["x_train"], labels["y_train"])
    return Task(
        public=PublicRows(
            rows=ProxySet(schema=numbers(columns), rows=rows["x_test"][:9_000]),
            labels=labels["y_test"][:9_000],
            num_classes=10,
            name="mnist",
        ),
        sites=tuple(
            train.take(np.arange(site, len(train.labels), SITES)[:site_rows])
            for site in range(SITES)
        ),
        test=labelled(rows["x_test"][9_000:], labels["y_test"][9_000:]),
    )


if __name__ == "__main__":
    main()
