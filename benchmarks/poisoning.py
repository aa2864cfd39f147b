"""What one malicious site of five can do, by `ensemble-weights`, on rows no test ever sees.

    python -m benchmarks.poisoning --data-dir DIR

Rows are cut as in `benchmarks.ensemble_weights`: validation rows come from the private rows, and
the test rows are dropped unseen. In each repeat the honest sites' releases are the same for every
attack and every way to combine them, so differences are paired; noise is fresh in each repeat. The
ensemble is scored without a student. DIR holds the npz files thyroid and heart4 (X, y, features,
silo), where nobody attacks: there the table shows what robustness costs.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.ensemble_weights import BY_SITE, Case, cut
from fedistill.data import LabelledRows, ProxySet
from fedistill.distill.outliers import find_outliers
from fedistill.distill.target import WEIGHTINGS, answers_of, build_ensemble
from fedistill.evaluate.metrics import score
from fedistill.features import ProxyBasis, proxy_basis
from fedistill.federation.simulation import ROWS_AT_LEAST
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse, probabilities
from fedistill.mechanisms import mechanism_named
from fedistill.mechanisms.dp_probe import DPProbe
from fedistill.privacy.grid import LABEL_BOUND, encode_log_odds

FIVE = tuple(f"site_{number}" for number in range(5))
ATTACKER = 2
ATTACKED = ("credit_default", "iid"), ("credit_default", "quantile:LIMIT_BAL")
HONEST = ("credit_default", "dirichlet:0.3"), ("thyroid.npz", BY_SITE), ("heart4.npz", BY_SITE)
_CLAIMED_ROWS = 1e6
_HALVINGS = 8

Answer = tuple[LabelRelease, LinearResponse]
Scores = Mapping[tuple[str, str], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question to sites, and what their answers are read with."""

    mechanism: DPProbe
    question: LabelQuestion
    proxy: ProxySet
    basis: ProxyBasis

    def answer(self, rows: LabelledRows) -> Answer:
        """A site that has these rows, with fresh noise."""
        plan = self.mechanism.plan(self.question, self.proxy, rows_at_least=ROWS_AT_LEAST)
        return self.read(self.mechanism.release(rows, self.proxy, plan)[0])

    def read(self, release: LabelRelease) -> Answer:
        """A release with its law, which follows from what it states."""
        return release, self.mechanism.response(self.question, release, self.proxy)


def measure(case: Case, *, attacked: bool) -> Scores:
    """Validation AUC, accuracy and log loss, by attack and weighting, for one draw of noise."""
    proxy, sites, validation = cut(case, names=FIVE)
    asked = _ask(case.epsilon, proxy, validation.num_classes)
    honest = [asked.answer(rows) for rows in sites]
    situations = {"nobody attacks": honest}
    if attacked:
        others = honest[:ATTACKER] + honest[ATTACKER + 1 :]
        situations["attacker absent"] = others
        for name, lie in _lies(asked, sites[ATTACKER], honest).items():
            situations[name] = [*others, lie]
    features = asked.basis.features(validation.rows)
    found = {}
    for name, answers in situations.items():
        releases, responses = zip(*answers, strict=True)
        for weights in WEIGHTINGS:
            ensemble = build_ensemble(releases, responses, asked.basis, weights=weights)
            log_odds = features @ (ensemble.weights[:, 1:] - ensemble.weights[:, :1])
            scores = score(probabilities(log_odds), validation.labels)
            found[name, weights] = (
                scores.auc or 0.5,
                scores.accuracy or 0.0,
                scores.log_loss or 0.0,
            )
    return found


def _ask(epsilon: float, proxy: ProxySet, num_classes: int) -> Asked:
    question = LabelQuestion(
        mechanism="dp-probe",
        epsilon=epsilon,
        delta=1e-5,
        num_classes=num_classes,
        proxy_sha256=proxy.sha256,
    )
    mechanism = mechanism_named("dp-probe")
    if not isinstance(mechanism, DPProbe):
        raise TypeError("the attacks are written for dp-probe's public parameters")
    return Asked(mechanism=mechanism, question=question, proxy=proxy, basis=proxy_basis(proxy))


def _lies(asked: Asked, rows: LabelledRows, honest: Sequence[Answer]) -> dict[str, Answer]:
    """What the attacker answers instead; class 1 is the one that matters."""
    shuffled = np.random.default_rng().permutation(rows.labels)
    inverted = asked.answer(replace(rows, labels=1 - rows.labels))
    # It knows where the others stand from its own honest answer.
    own = honest[ATTACKER][0]
    away = -np.sign(own.log_odds - np.median(own.log_odds))
    claim = {"noised-count": _CLAIMED_ROWS}
    others = [answer for number, answer in enumerate(honest) if number != ATTACKER]
    return {
        "class 1 as 0": asked.answer(
            replace(rows, labels=np.where(rows.labels == 1, 0, rows.labels))
        ),
        "labels permuted": asked.answer(replace(rows, labels=shuffled)),
        "labels inverted": inverted,
        "labels inverted, claims 10^6 rows": _crafted(
            asked, inverted[0], inverted[0].log_odds, claim
        ),
        "crafted, at the bound": _crafted(asked, own, LABEL_BOUND * away, {}),
        "crafted, claims 10^6 rows": _crafted(asked, own, LABEL_BOUND * away, claim),
        "patient, claims 10^6 rows": _patient(asked, own, away, others),
    }


def _crafted(
    asked: Asked, own: LabelRelease, log_odds: Floats, stated: Mapping[str, float]
) -> Answer:
    codes, scale = encode_log_odds(log_odds)
    return asked.read(
        replace(own, codes=codes, scale=scale, parameters={**own.parameters, **stated})
    )


def _patient(asked: Asked, own: LabelRelease, away: Floats, others: Sequence[Answer]) -> Answer:
    """The strongest shift of its own answer that the others' answers just do not give away.

    No site sees the others' answers, so this is more than an attacker can do.
    """
    least, most = 0.0, LABEL_BOUND
    claim = {"noised-count": _CLAIMED_ROWS}
    for _ in range(_HALVINGS):
        strength = (least + most) / 2
        lie = _crafted(asked, own, _smooth(asked, own) + strength * away, claim)
        releases, responses = zip(*others, lie, strict=True)
        caught = find_outliers(answers_of(releases, responses, asked.basis)).excess[-1] > 0
        least, most = (least, strength) if caught else (strength, most)
    return _crafted(asked, own, _smooth(asked, own) + least * away, claim)


def _smooth(asked: Asked, own: LabelRelease) -> Floats:
    """Its own honest answer without the noise, as far as denoising can."""
    alone = build_ensemble([own], [asked.read(own)[1]], asked.basis)
    return alone.target.log_odds


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    arguments = parser.parse_args()
    folder = arguments.data_dir.resolve()
    for title, cuts, attacked in (
        ("One site of five attacks", ATTACKED, True),
        ("Nobody attacks", HONEST, False),
    ):
        cases = [
            Case(
                dataset=str(folder / name) if name.endswith(".npz") else name,
                partition=partition,
                epsilon=arguments.epsilon,
            )
            for name, partition in cuts
        ]
        repeated = [case for case in cases for _ in range(arguments.repeats)]
        with ProcessPoolExecutor(arguments.jobs) as pool:
            results = pool.map(partial(measure, attacked=attacked), repeated)
            found = list(track(results, total=len(repeated)))
        print(f"\n{title}, epsilon {arguments.epsilon:g}:\n\n{table(cases, found)}")


def table(cases: Sequence[Case], found: Sequence[Scores]) -> str:
    """Markdown: AUC and accuracy by attack and weighting, means ± standard errors over repeats."""
    lines = [
        f"| data set | sites | attack | {' | '.join(WEIGHTINGS)} |",
        "|---|---|---|" + "---|" * len(WEIGHTINGS),
    ]
    repeats = len(found) // len(cases)
    for number, case in enumerate(cases):
        rows = found[number * repeats : (number + 1) * repeats]
        for attack in dict.fromkeys(name for name, _ in rows[0]):
            cells = [Path(case.dataset).stem, case.partition, attack]
            for weights in WEIGHTINGS:
                auc, accuracy, _ = zip(*(row[attack, weights] for row in rows), strict=True)
                cells.append(f"{_with_error(auc)}; {_with_error(accuracy)}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_error(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
