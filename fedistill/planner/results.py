"""A forecast as figures: by mechanism and epsilon, as JSON, and as a page with its curves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fedistill.evaluate.charts.curves import curve_plot
from fedistill.planner.forecast import Forecast
from fedistill.planner.recommend import standard_error


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mechanism at one epsilon, over all draws.

    Attributes:
        mechanism: Its name.
        epsilon: What an answer costs.
        score: Mean.
        standard_error: Of the mean over draws, which differ in rows, labels and noise; None for a
            single draw.
        draws: How many.
        noise_nats: Root mean square noise in a site's log-odds.
        bytes_up: Size of a site's answer.
        seconds: Of one site's work on this machine.
    """

    mechanism: str
    epsilon: float
    score: float
    standard_error: float | None
    draws: int
    noise_nats: float
    bytes_up: int
    seconds: float


def points(forecast: Forecast) -> list[Point]:
    """By mechanism, in the order they were tried, and epsilon, rising."""
    names = dict.fromkeys(trial.mechanism for trial in forecast.trials)
    tried = {(trial.mechanism, trial.epsilon) for trial in forecast.trials}
    keys = [key for name in names for key in sorted(tried) if key[0] == name]
    found = []
    for name, epsilon in keys:
        some = [t for t in forecast.trials if (t.mechanism, t.epsilon) == (name, epsilon)]
        scores = np.array([trial.score for trial in some])
        found.append(
            Point(
                mechanism=name,
                epsilon=epsilon,
                score=float(scores.mean()),
                standard_error=standard_error(scores) if len(scores) > 1 else None,
                draws=len(scores),
                noise_nats=float(np.mean([trial.noise_nats for trial in some])),
                bytes_up=some[0].bytes_up,
                seconds=float(np.median([trial.seconds for trial in some])),
            )
        )
    return found


def curves(forecast: Forecast) -> Mapping[str, list[tuple[float, float]]]:
    """(epsilon, score) by mechanism, epsilons rising: the first draw's.

    Mechanisms that fell far behind may have been tried at one epsilon alone; they have no curve.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for trial in forecast.trials:
        if trial.draw == 0:
            found.setdefault(trial.mechanism, []).append((trial.epsilon, trial.score))
    return {name: sorted(points) for name, points in found.items() if len(points) > 1}


def as_json(forecast: Forecast) -> dict[str, Any]:
    """What `--format json` prints."""
    return {
        "public": forecast.public,
        "request": asdict(forecast.request),
        "num_classes": forecast.num_classes,
        "metric": forecast.metric,
        "with_labels": forecast.with_labels,
        "recommended": forecast.advice.mechanism,
        "tied": list(forecast.advice.tied),
        "reason": forecast.advice.reason,
        "mechanisms": [asdict(point) for point in points(forecast)],
        "skipped": dict(forecast.skipped),
        "notes": list(forecast.notes),
    }


def render_page(forecast: Forecast) -> str:
    """A page that needs no network and no script. Every name in it is escaped."""
    environment = Environment(
        loader=PackageLoader("fedistill.evaluate"), autoescape=True, undefined=StrictUndefined
    )
    unit = "AUC" if forecast.metric == "auc" else "Accuracy"
    chosen = forecast.advice.mechanism
    return environment.get_template("plan.html.j2").render(
        name=forecast.public,
        headline=f"Use {chosen}" if chosen else "No mechanism beats guessing",
        reason=forecast.advice.reason,
        plot=curve_plot(curves(forecast), best=chosen, unit=unit),
        notes=forecast.notes,
    )
