"""Which mechanism to use, and why, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.planner.trial import Trial

CONFIDENCE = 0.95
"""Differences whose interval of this confidence holds zero say nothing."""

FAR_BEHIND = 0.05
"""So far behind the best, a mechanism is no choice, however few draws say so."""

LEAST_SIGNAL = 0.02
"""Labels that let nobody score this much above chance count as if they did."""

_MUCH_SMALLER = 0.9


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A recommendation.

    Attributes:
        mechanism: The one to use; None where none is clearly better than guessing.
        leader: The one of the best mean, whether that says something or not; "" without trials.
        tied: Others that these draws cannot tell from the best, best first.
        reason: Why, in sentences.
    """

    mechanism: str | None
    leader: str
    tied: tuple[str, ...]
    reason: str


def recommend(trials: Sequence[Trial], epsilon: float, *, metric: str) -> Advice:
    """The mechanism of the best mean at `epsilon`.

    Among those that paired differences cannot tell from it: exact integer noise before
    floating-point noise, then an answer of clearly fewer bytes, then the better mean.
    """
    here = [trial for trial in trials if trial.epsilon == epsilon]
    scores: dict[str, dict[int, float]] = {}
    for trial in here:
        scores.setdefault(trial.mechanism, {})[trial.draw] = trial.score
    if not scores:
        return Advice(mechanism=None, leader="", tied=(), reason="No mechanism could be tried.")
    means = {name: float(np.mean(list(by_draw.values()))) for name, by_draw in scores.items()}
    best = max(means, key=lambda name: means[name])
    gains = np.array([_share_of_attainable(trial) for trial in here if trial.mechanism == best])
    label = "AUC" if metric == "auc" else metric
    if gains.mean() <= reach(gains):
        reason = (
            f"No mechanism is clearly better than guessing at epsilon {epsilon:g}; {best} leads "
        )
        reason += f"with a mean {label} of {means[best]:.3f}. Raise epsilon, bring more rows or "
        reason += "sites, or give more --seconds."
        return Advice(mechanism=None, leader=best, tied=(), reason=reason)
    tied = [name for name in scores if name == best or _alike(scores[best], scores[name])]
    tied.sort(key=lambda name: -means[name])
    facts = {trial.mechanism: trial for trial in here}
    bytes_of_best = facts[best].bytes_up

    def order(name: str) -> tuple[bool, bool, float]:
        large = facts[name].bytes_up > _MUCH_SMALLER * bytes_of_best
        return facts[name].float_noise, large, -means[name]

    chosen = min(tied, key=order)
    others = tuple(name for name in tied if name != chosen)
    reason = f"{chosen} has a mean {label} of {means[chosen]:.3f} at epsilon {epsilon:g}"
    if others:
        reason += f", which these draws cannot tell from {' and '.join(others)}"
    reason += "."
    if chosen != best:
        does_more = "its noise is exact" if facts[best].float_noise else "it sends fewer bytes"
        reason += f" {best} has {means[best]:.3f}, but {does_more} with {chosen}."
    behind = [name for name in means if name not in tied]
    if behind:
        second = max(behind, key=lambda name: means[name])
        reason += f" Next comes {second} with {means[second]:.3f}."
    return Advice(mechanism=chosen, leader=best, tied=others, reason=reason)


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Of the mean; infinite for a single value, which says nothing of its spread."""
    if len(values) < 2:
        return float("inf")
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def reach(values: npt.NDArray[np.float64]) -> float:
    """Half the width of the mean's interval, by Student's law: draws are few."""
    from scipy.stats import t

    if len(values) < 2:
        return float("inf")
    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * standard_error(values)


def _share_of_attainable(trial: Trial) -> float:
    """What was learned, as a share of what the draw's labels let anyone learn.

    Draws differ in how much that is, and that difference is no doubt about the mechanism.
    """
    return (trial.score - trial.chance) / max(trial.attainable - trial.chance, LEAST_SIGNAL)


def _alike(best: dict[int, float], other: dict[int, float]) -> bool:
    """Whether paired differences leave it open which is better."""
    differences = np.array([best[draw] - other[draw] for draw in best.keys() & other.keys()])
    mean = differences.mean()
    return bool(mean < FAR_BEHIND and mean <= reach(differences))
