"""The comparison in words: tables, paired differences, and what was asked as met or not."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.baselines.rows import Result
from benchmarks.baselines.settings import SETTINGS

BEGIN = "<!-- vs_fedavg_dpsgd:begin -->"
END = "<!-- vs_fedavg_dpsgd:end -->"

ASKED = {"thyroid": 0.917, "adult": 0.906}
"""AUC of the shipped file at epsilon 1."""

MOST_LOST = 0.002
"""AUC that the shipped file may lose to the target."""

NOTES = """\
AUC on the same public test split, mean over seeds ± its standard error; differences are paired by \
seed. The split is all that two runs of a pair share: their noise and batches differ, so pairing \
removes the split from a difference and nothing else. The error that comes from the test rows \
being a sample is common to a line and stands in a column of its own. FedAvg's setting is the best \
on labelled proxy rows, not charged to epsilon. Bytes are one site's over the whole run. Seconds \
are medians, on one core, the sites one after the other; ours include distillation, compression \
and the report."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All results of a data set at an epsilon, by method in the order of seeds."""

    dataset: str
    epsilon: float
    central: float
    local: tuple[Result, ...]
    raw: tuple[Result, ...]
    features: tuple[Result, ...]
    ours: tuple[Result, ...]

    def less(self, other: Sequence[Result]) -> list[float]:
        """The shipped file's AUC less another method's, by seed."""
        return [mine.auc - its.auc for mine, its in zip(self.ours, other, strict=True)]

    def lost(self) -> list[float]:
        """The shipped file's AUC less the target's, by seed."""
        return [result.auc - (result.target or 0.0) for result in self.ours]


def short_table(cells: Iterable[Cell]) -> str:
    """Markdown: what a reader asks first."""
    header = (
        "data",
        "epsilon",
        "fedistill, shipped file",
        "FedAvg + DP-SGD, raw columns",
        "FedAvg + DP-SGD, our features",
        "one site alone, DP",
        "central, not private",
        "ours - raw",
        "ours - features",
        "bytes up a site: ours, raw",
    )
    return _table(
        header,
        [
            (
                cell.dataset,
                f"{cell.epsilon:g}",
                spread([result.auc for result in cell.ours]),
                spread([result.auc for result in cell.raw]),
                spread([result.auc for result in cell.features]),
                spread([result.auc for result in cell.local]),
                f"{cell.central:.4f}",
                spread(cell.less(cell.raw), sign="+"),
                spread(cell.less(cell.features), sign="+"),
                f"{cell.ours[0].bytes_up:,}, {cell.raw[0].bytes_up:,}",
            )
            for cell in cells
        ],
    )


def quality_table(cells: Iterable[Cell]) -> str:
    """Markdown: AUC of every method, and differences."""
    header = (
        "data",
        "epsilon",
        "ours, shipped file",
        "ours, target",
        "FedAvg + DP-SGD, raw columns",
        "FedAvg + DP-SGD, public features",
        "one site alone, DP",
        "central, not private",
        "shipped - raw",
        "shipped - features",
        "shipped - target",
        "error of the split",
    )
    return _table(
        header,
        [
            (
                cell.dataset,
                f"{cell.epsilon:g}",
                spread([result.auc for result in cell.ours]),
                spread([result.target or 0.0 for result in cell.ours]),
                spread([result.auc for result in cell.raw]),
                spread([result.auc for result in cell.features]),
                spread([result.auc for result in cell.local]),
                f"{cell.central:.4f}",
                spread(cell.less(cell.raw), sign="+"),
                spread(cell.less(cell.features), sign="+"),
                spread(cell.lost(), sign="+"),
                f"{statistics.mean(result.split_error or 0.0 for result in cell.ours):.4f}",
            )
            for cell in cells
        ],
    )


def cost_table(cells: Iterable[Cell]) -> str:
    """Markdown: what every method sends and takes, and what was chosen."""
    header = (
        "data",
        "epsilon",
        "bytes up a site: ours",
        "raw",
        "features",
        "seconds: ours",
        "raw",
        "features",
        "shipped stage",
        "setting, raw",
        "setting, features",
    )
    lines = []
    for cell in cells:
        methods = cell.ours, cell.raw, cell.features
        stages = [result.shipped for result in cell.ours]
        lines.append(
            (
                cell.dataset,
                f"{cell.epsilon:g}",
                *(f"{max(result.bytes_up for result in method):,}" for method in methods),
                *(f"{statistics.median(r.seconds for r in method):.1f}" for method in methods),
                ", ".join(f"{stages.count(stage)} {stage}" for stage in sorted(set(stages))),
                str(SETTINGS["raw"][cell.raw[0].row.setting]),
                str(SETTINGS["features"][cell.features[0].row.setting]),
            )
        )
    return _table(header, lines)


def verdict(cells: Sequence[Cell]) -> str:
    """What was asked, each as met or not met with its numbers."""
    lines = []
    for dataset, asked in ASKED.items():
        ours = [cell.ours for cell in cells if (cell.dataset, cell.epsilon) == (dataset, 1.0)]
        what = f"{dataset} at epsilon 1: the shipped file reaches {asked:.3f}"
        scores = [result.auc for result in ours[0]] if ours else []
        met = statistics.mean(scores) >= asked if scores else None
        lines.append(_line(what, met, spread(scores) if scores else ""))
    lines.append(
        _everywhere(
            "never below FedAvg + DP-SGD on raw columns",
            cells,
            lambda cell: cell.less(cell.raw),
            lambda values: statistics.mean(values) >= 0,
        )
    )
    lines.append(
        _everywhere(
            "on par with it on public features, or better (no less by two standard errors)",
            cells,
            lambda cell: cell.less(cell.features),
            lambda values: statistics.mean(values) >= -2 * standard_error(values),
        )
    )
    lines.append(
        _everywhere(
            f"the shipped file loses at most {MOST_LOST} to the target",
            cells,
            lambda cell: cell.lost(),
            lambda values: statistics.mean(values) >= -MOST_LOST,
        )
    )
    return "\n".join(lines)


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the two markers of a Markdown file.

    Raises:
        ValueError: The file lacks a marker, or they stand in the wrong order.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} must hold {BEGIN} and then {END}: add both lines")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard error of the mean."""
    mean = f"{statistics.mean(values):{sign}.4f}"
    return f"{mean} ± {standard_error(values):.4f}" if len(values) > 1 else mean


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for a single value."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _everywhere(
    what: str,
    cells: Sequence[Cell],
    values: Callable[[Cell], list[float]],
    holds: Callable[[list[float]], bool],
) -> str:
    """A verdict over all cells; names those that fail, or the one of the least mean."""
    if not cells:
        return _line(what, None, "")
    failing = [cell for cell in cells if not holds(values(cell))]
    least = min(cells, key=lambda cell: statistics.mean(values(cell)))
    named = "; ".join(
        f"{cell.dataset} at {cell.epsilon:g}: {spread(values(cell), sign='+')}"
        for cell in failing or [least]
    )
    kept = f"{len(cells) - len(failing)} of {len(cells)}"
    return _line(what, not failing, f"{kept}; {'fails' if failing else 'least'} {named}")


def _line(what: str, met: bool | None, numbers: str) -> str:
    if met is None:
        return f"- not measured: {what}"
    return f"- {'met' if met else 'not met'}: {what}: {numbers}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
