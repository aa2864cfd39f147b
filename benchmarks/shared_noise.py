"""What it gains to sum over sites, and to share the noise, at the same epsilon.

    python -m benchmarks.shared_noise --data-dir DIR

DIR holds `thyroid.npz`, `uci_credit.npz` and `adult.npz` (X, y), each shared by three sites at
random; heart disease ships with the package and is asked at its four real hospitals. Each row of
the table is a way to learn from the same sites:

    each alone       dp-probe at each site, with noise of its own; answers are averaged
    moment, own      one moment summed over sites, each with all noise of its own
    moment, n-1      the same, with noise that all sites but one share
    moment, n        the same, with noise that all sites share
    corrections, ... the same three for `corrections`, with so many federation rounds
    one large site   dp-probe at a single site that holds all rows

The AUC is that of the denoised target on validation rows cut from private rows, mean of the repeats
and its standard error; noise is fresh in each, and test rows are never read. With `--rounds` each
number of rounds has rows of its own: so the number that ships was chosen.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.probe_settings import CHOSEN, EPSILONS, Cut, cut, validation_auc
from benchmarks.solvers import shown
from fedistill.data import LabelledRows
from fedistill.distill.target import build_ensemble
from fedistill.evaluate.metrics import auc
from fedistill.features import proxy_basis
from fedistill.federation.simulation import ROWS_AT_LEAST
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms.summed import nothing_opened, summable

ROUNDS = (4,)
"""What `corrections` takes unless `--rounds` says otherwise."""

Score = Callable[[float], float]
"""An epsilon to the validation AUC of one draw of the noise."""


def cuts(folder: Path) -> Iterator[tuple[str, Callable[[], Cut]]]:
    """The data sets by name, read when they are asked for."""
    for name in ("uci_credit", "thyroid", "adult"):
        yield name, partial(cut, str((folder / f"{name}.npz").resolve()))
    yield "heart, 4 hospitals", partial(cut, "heart_disease", site_column="hospital")


def scores(rows: Cut, rounds: Sequence[int]) -> Iterator[tuple[str, Score]]:
    """The ways to learn, by name."""
    proxy, sites, validation = rows
    yield "each alone", lambda epsilon: validation_auc(rows, epsilon, CHOSEN)
    for name, solver, number in [
        ("moment", "dp-probe", 1),
        *[(f"corrections, {number} rounds", "corrections", number) for number in rounds],
    ]:
        for shared, honest in (("own", 1), ("n-1", len(sites) - 1), ("n", len(sites))):
            yield f"{name}, {shared}", partial(summed_auc, rows, solver, number, honest)
    large = proxy, [_together(sites)], validation
    yield "one large site", lambda epsilon: validation_auc(large, epsilon, CHOSEN)


def summed_auc(rows: Cut, mechanism: str, rounds: int, honest: int, epsilon: float) -> float:
    """AUC of the target that the sum over sites gives."""
    proxy, sites, validation = rows
    question = LabelQuestion(
        mechanism=mechanism,
        epsilon=epsilon,
        delta=1e-5,
        solver="moment",
        num_classes=validation.num_classes,
        proxy_sha256=proxy.sha256,
        trust="secagg",
        min_honest_sites=honest,
        rounds=rounds,
    )
    asked, state = summable(mechanism), nothing_opened(question, proxy)
    for number in range(1, rounds + 1):
        plan = asked.plan_sum(
            replace(question, round=number),
            proxy,
            rows_at_least=ROWS_AT_LEAST,
            num_sites=len(sites),
        )
        sent = [asked.noised_integers(site, proxy, plan, state.weights) for site in sites]
        total = np.sum(sent, axis=0)
        state = asked.open_sum(total, proxy, plan, num_sites=len(sites), before=state)
    release, response = asked.answer_sum(state, proxy, plan)
    ensemble = build_ensemble([release], [response], proxy_basis(proxy))
    return auc(probabilities(ensemble.label(validation.rows)), validation.labels) or 0.5


def _together(sites: Sequence[LabelledRows]) -> LabelledRows:
    return replace(
        sites[0],
        rows=np.concatenate([site.rows for site in sites]),
        labels=np.concatenate([site.labels for site in sites]),
        misfit=None,
    )


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of npz tables")
    parser.add_argument("--repeats", type=int, default=4, help="draws of the noise")
    parser.add_argument("--rounds", type=int, nargs="+", default=ROUNDS, help="of corrections")
    parser.add_argument("--only", default="", help="data sets whose name holds this")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    for name, read in cuts(arguments.data_dir):
        if arguments.only not in name:
            continue
        rows = read()
        table = Table("", *(f"epsilon {epsilon:g}" for epsilon in EPSILONS), title=name, box=None)
        ways = list(scores(rows, arguments.rounds))
        for way, score in track(ways, description=name, console=console):
            found = (
                np.array([score(epsilon) for _ in range(arguments.repeats)]) for epsilon in EPSILONS
            )
            table.add_row(way, *map(shown, found))
        console.print(table)


if __name__ == "__main__":
    main()
