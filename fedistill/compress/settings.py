"""How far a student is compressed, and what the shipped file must meet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

PRUNE_BY = ("group-l1", "taylor", "unstructured")
QUANTIZE = ("int8", "int8-dynamic", "int8-qat", "fp16", "none")
FLOAT_ENDS = ("last", "both", "none")
TARGET_CPU = ("here", "any", "vnni")

GRID = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Shares of the channels that a search removes."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the shipped file must meet beside the quality gate.

    Attributes:
        max_latency_ms: Median milliseconds of a call with one row, one thread; 0 for no bound.
        max_bytes: Size of the file; 0 for no bound.
    """

    max_latency_ms: float = 0.0
    max_bytes: int = 0

    def __bool__(self) -> bool:
        return self.max_latency_ms > 0 or self.max_bytes > 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a student is compressed.

    Attributes:
        prune_ratio: Share of the channels to remove, in [0, 0.9]; of single weights where
            `prune_by` is "unstructured".
        prune_by: "group-l1" and "taylor" remove channels, "unstructured" sets weights to zero.
        quantize: "int8" (static), "int8-dynamic", "int8-qat", "fp16" or "none".
        float_ends: Layers that stay in float32 in an int8 file: the "last", "both" ends, or "none".
        target_cpu: Where int8 files run: "here", on "any" CPU, or on those with "vnni".
        search: Whether `grid` is tried in place of `prune_ratio`.
        grid: Shares that a search tries, rising; the whole student is tried anyway.
        bounds: What the shipped file must meet.
    """

    prune_ratio: float = 0.5
    prune_by: str = "group-l1"
    quantize: str = "int8"
    float_ends: str = "last"
    target_cpu: str = "here"
    search: bool = False
    grid: tuple[float, ...] = GRID
    bounds: Bounds = Bounds()

    @property
    def searches(self) -> bool:
        """Whether several shares are tried: where it is asked for, or a bound must be met."""
        return self.search or bool(self.bounds)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Shares of the channels that are removed, a version of the student each."""
        if self.searches:
            return self.grid
        return (self.prune_ratio,) if self.prune_ratio > 0 else ()


PRESETS: Mapping[str, Mapping[str, float | str | bool]] = MappingProxyType(
    {
        "custom": {},
        "light": {"prune_ratio": 0.2, "prune_by": "group-l1"},
        "half": {"prune_ratio": 0.5, "prune_by": "group-l1"},
        "sparse": {"prune_ratio": 0.7, "prune_by": "unstructured"},
        "search": {"search": True},
    }
)
"""What each value of the run-config key `compression` sets."""


def preset(name: str, settings: Settings) -> Settings:
    """The settings with what the preset sets."""
    return replace(settings, **PRESETS[name])  # type: ignore[arg-type]
