"""The Pareto front of a search: the files that no other beats in size, latency and agreement."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fedistill.compress.gate import Stage, Verdict
from fedistill.compress.settings import Settings

PARETO_FILE = "pareto.json"


def on_front(stages: Sequence[Stage]) -> tuple[bool, ...]:
    """Which stages no other beats: none is as small, as fast and as true, and better in one."""
    costs = [_cost(stage) for stage in stages]
    return tuple(
        not any(
            other != cost and all(a <= b for a, b in zip(other, cost, strict=True))
            for other in costs
        )
        for cost in costs
    )


def write_pareto(path: Path, verdict: Verdict, settings: Settings) -> None:
    """Write all that a search measured, and which of it is on the front."""
    points = [
        {**asdict(stage), "on_front": front, "misses": list(missed)}
        for stage, front, missed in zip(
            verdict.stages, on_front(verdict.stages), verdict.misses, strict=True
        )
    ]
    content = {"bounds": asdict(settings.bounds), "met": verdict.met, "points": points}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cost(stage: Stage) -> tuple[float, float, float]:
    return stage.bytes, stage.latency_ms_batch_1, -stage.agreement
