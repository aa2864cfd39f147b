"""The forecast: every mechanism answers virtual sites with its real noise, and is scored.

The first draw covers all epsilons; further draws repeat the epsilon that was asked, while seconds
are left, among the mechanisms that may still be the best.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedistill.codec import encode_release
from fedistill.data import ProxySet
from fedistill.distill.target import build_ensemble
from fedistill.errors import ConfigError, PolicyRefusal
from fedistill.evaluate.metrics import score
from fedistill.features import proxy_basis
from fedistill.labels import Floats, LabelQuestion, probabilities
from fedistill.mechanisms import Mechanism, has_float_noise, mechanism_named, mechanism_names
from fedistill.planner.public_rows import PublicRows
from fedistill.planner.recommend import FAR_BEHIND, Advice, recommend
from fedistill.planner.trial import Trial
from fedistill.planner.virtual_sites import World, draw_world
from fedistill.privacy.adjacency import Unit

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Epsilons of the curve, as multiples of the one that was asked."""

MOST_ROWS = 60_000
"""Virtual private rows of all sites together."""

MOST_SITES = 10
FEWEST_DRAWS, MOST_DRAWS = 3, 12
_LARGEST_EPSILON = 100.0

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to plan for. Every field is public.

    Attributes:
        rows_at_least: What each site declares in public about its number of rows.
        num_sites: How many sites.
        epsilon: What one release may cost, at `delta`.
        delta: 0 < delta <= 1e-3, below 1 / `rows_at_least`.
        teacher: Model of the mechanisms that train one; "" takes the default.
        mechanisms: Which to compare; () takes all that protect a record.
        seconds: About how long to repeat draws.

    Raises:
        ConfigError: A value is out of bounds.
    """

    rows_at_least: int
    num_sites: int = 3
    epsilon: float = 1.0
    delta: float = 1e-5
    teacher: str = ""
    mechanisms: tuple[str, ...] = ()
    seconds: float = 40.0

    def __post_init__(self) -> None:
        checks = (
            ("rows-at-least", self.rows_at_least, self.rows_at_least >= 20, "at least 20"),
            ("sites", self.num_sites, self.num_sites >= 1, "at least 1"),
            (
                "epsilon",
                self.epsilon,
                0 < self.epsilon <= _LARGEST_EPSILON,
                f"above 0 and at most {_LARGEST_EPSILON:g}",
            ),
            ("delta", self.delta, 0 < self.delta <= 1e-3, "above 0 and at most 1e-3"),
            ("seconds", self.seconds, 0 <= self.seconds < np.inf, "at least 0"),
        )
        for name, value, holds, bound in checks:
            if not holds:
                raise ConfigError(f"{name}={value} must be {bound}: give such a --{name}")
        if self.delta * self.rows_at_least >= 1:
            raise ConfigError(
                f"delta={self.delta} must be below 1 / rows-at-least = {1 / self.rows_at_least:g}: "
                "lower --delta"
            )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What public data foretells.

    Attributes:
        request: What was asked.
        public: Name of the public rows.
        num_classes: Classes of the task.
        metric: `auc` for two classes, else `accuracy`.
        with_labels: Whether public labels were used; else they were made up.
        trials: One for each mechanism, epsilon and draw.
        skipped: Why a mechanism was not tried, by name.
        advice: Which to use, and why.
        notes: Assumptions and limits, in sentences.
    """

    request: Request
    public: str
    num_classes: int
    metric: str
    with_labels: bool
    trials: tuple[Trial, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    advice: Advice
    notes: tuple[str, ...]


def forecast(
    public: PublicRows, request: Request, on_step: Progress = lambda done, total, what: None
) -> Forecast:
    """Plan from public rows alone.

    Args:
        public: Public rows; nothing else is read.
        request: What to plan for.
        on_step: Called before each trial with how many are done, how many there may be, and which.

    Raises:
        PolicyRefusal: A mechanism that was asked for, or its teacher, cannot run.
    """
    started = time.monotonic()
    num_sites = min(request.num_sites, MOST_SITES)
    num_rows = min(request.rows_at_least, MOST_ROWS // num_sites)

    def world_of(draw: int) -> World:
        return draw_world(public, draw=draw, num_sites=num_sites, num_rows=num_rows)

    world = world_of(0)
    names, skipped = _runnable(request, world.proxy, public.num_classes)
    steps = _steps(names, request.epsilon)
    trials: list[Trial] = []
    for done, (draw, name, epsilon) in enumerate(steps):
        on_step(done, len(steps), f"{name} at epsilon {epsilon:g}")
        late = time.monotonic() - started > request.seconds
        if draw >= FEWEST_DRAWS and late:
            break
        if _is_hopeless(name, trials, request.epsilon) and (draw > 0 or late):
            continue
        world = world if draw == (trials[-1].draw if trials else 0) else world_of(draw)
        question = _question(request, world.proxy, public.num_classes, name, epsilon)
        trials.append(_try(world, question, request, public, draw))
    on_step(len(steps), len(steps), "done")
    return Forecast(
        request=request,
        public=public.name,
        num_classes=public.num_classes,
        metric=_metric(public.num_classes),
        with_labels=public.labels is not None,
        trials=tuple(trials),
        skipped=skipped,
        advice=recommend(trials, request.epsilon, metric=_metric(public.num_classes)),
        notes=tuple(_notes(public, request, num_sites, num_rows)),
    )


def _metric(num_classes: int) -> str:
    return "auc" if num_classes == 2 else "accuracy"


def _question(
    request: Request, proxy: ProxySet, num_classes: int, name: str, epsilon: float
) -> LabelQuestion:
    return LabelQuestion(
        mechanism=name,
        epsilon=epsilon,
        delta=request.delta,
        num_classes=num_classes,
        proxy_sha256=proxy.sha256,
        teacher=request.teacher,
    )


_NOT_REHEARSED = {
    "corrections": "learns by sums over sites, round by round; here each site would answer alone: "
    "ask by --mechanism"
}


def _runnable(
    request: Request, proxy: ProxySet, num_classes: int
) -> tuple[list[str], dict[str, str]]:
    """Mechanisms that can answer, and why others cannot."""
    names: list[str] = []
    skipped = {} if request.mechanisms else dict(_NOT_REHEARSED)
    for name in request.mechanisms or mechanism_names():
        if name in skipped:
            continue
        try:
            mechanism = mechanism_named(name)
            question = _question(request, proxy, num_classes, name, request.epsilon)
            mechanism.plan(question, proxy, rows_at_least=request.rows_at_least)
        except (PolicyRefusal, ImportError) as error:
            if request.mechanisms or (request.teacher and "teacher=" in str(error)):
                raise ConfigError(str(error)) from error
            skipped[name] = str(error)
            continue
        if request.mechanisms or _protects_records(mechanism):
            names.append(name)
        else:
            skipped[name] = "guarantees something else than for one record: ask by --mechanism"
    return names, skipped


def _protects_records(mechanism: Mechanism) -> bool:
    return Unit.RECORD in mechanism.units


def _try(
    world: World, question: LabelQuestion, request: Request, public: PublicRows, draw: int
) -> Trial:
    """All sites answer once; the ensemble is scored on the held-out rows."""
    mechanism, basis = mechanism_named(question.mechanism), proxy_basis(world.proxy)
    started = time.perf_counter()
    plan = mechanism.plan(question, world.proxy, rows_at_least=request.rows_at_least)
    releases = [mechanism.release(rows, world.proxy, plan)[0] for rows in world.sites]
    seconds = (time.perf_counter() - started) / len(world.sites)
    responses = [mechanism.response(question, each, world.proxy) for each in releases]
    ensemble = build_ensemble(releases, responses, basis)
    held_out = world.held_out
    two = public.num_classes == 2

    def scored(shares: Floats) -> float:
        scores = score(shares, held_out.labels)
        return (scores.auc if two else scores.accuracy) or 0.0

    variance = np.mean([response.noise_variance for response in responses], axis=0)
    # The real proxy set has all public rows.
    codes = np.zeros((len(public.rows.rows), public.num_classes - 1), np.int16)
    return Trial(
        mechanism=question.mechanism,
        epsilon=question.epsilon,
        draw=draw,
        score=scored(probabilities(ensemble.label(held_out.rows))),
        chance=0.5 if two else float(np.bincount(held_out.labels).max() / len(held_out.labels)),
        attainable=scored(world.truth),
        # A log-odd is the difference of two classes, each with this variance.
        noise_nats=float(np.sqrt(2 * (variance * basis.eigenvalues).sum())),
        bytes_up=len(encode_release(replace(releases[0], codes=codes))),
        seconds=seconds,
        float_noise=has_float_noise(mechanism),
    )


def _steps(names: list[str], asked: float) -> list[tuple[int, str, float]]:
    """What to try, by draw, mechanism and epsilon: first what the advice cannot do without."""
    steps = [(0, name, asked) for name in names]
    steps += [(0, name, asked * factor) for factor in FACTORS if factor != 1 for name in names]
    return steps + [(draw, name, asked) for draw in range(1, MOST_DRAWS) for name in names]


def _is_hopeless(name: str, trials: list[Trial], epsilon: float) -> bool:
    """Whether the first draws left a mechanism far behind the best; one alone must say so twice."""
    first = [trial for trial in trials if trial.epsilon == epsilon and trial.draw < FEWEST_DRAWS]
    scores: dict[str, list[float]] = {}
    for trial in first:
        scores.setdefault(trial.mechanism, []).append(trial.score)
    if name not in scores:
        return False
    means = {each: float(np.mean(values)) for each, values in scores.items()}
    behind = FAR_BEHIND if len(scores[name]) > 1 else 2 * FAR_BEHIND
    return means[name] < max(means.values()) - behind


def _notes(public: PublicRows, request: Request, num_sites: int, num_rows: int) -> list[str]:
    notes = []
    if public.labels is None:
        notes.append(
            "Without labels this foretells how mechanisms rank, not how well your task goes: "
            "labels were made up by random functions of a few columns."
        )
    else:
        notes.append(
            "Virtual sites are labelled by a model of the public labels, so they resemble the "
            "public rows; real sites that differ from them score lower."
        )
    if num_rows < request.rows_at_least:
        notes.append(
            f"Each virtual site has {num_rows:,} of {request.rows_at_least:,} rows, to save time: "
            "expect a little more."
        )
    if num_sites < request.num_sites:
        notes.append(f"{num_sites} of {request.num_sites} sites were simulated, to save time.")
    notes.append("Sites are alike here. The score is the ensemble's, before distillation.")
    return notes
