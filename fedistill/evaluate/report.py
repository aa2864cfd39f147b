"""The evidence pack: one HTML file that needs no network, no script and no font of its own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict

from fedistill.evaluate import gains, wording
from fedistill.evaluate.calibration import ECE_BINS
from fedistill.evaluate.charts import bars
from fedistill.evaluate.charts.front import front_plots
from fedistill.evaluate.charts.joining import forest_plot
from fedistill.evaluate.charts.reliability import reliability_plot
from fedistill.evaluate.charts.scores import auc_plot
from fedistill.evaluate.comparison import Comparison
from fedistill.evaluate.figures import Figure
from fedistill.evaluate.files import write_atomically
from fedistill.evaluate.summary import Summary

_STAGE_ROWS: tuple[tuple[str, str, Callable[..., str]], ...] = (
    ("Precision", "precision", str),
    ("Parameters", "parameters", "{:,}".format),
    ("Bytes", "bytes", "{:,}".format),
    ("Latency of 1 row, ms", "latency_ms_batch_1", wording.three_digits),
    ("Latency of 256 rows, ms", "latency_ms_batch_256", wording.three_digits),
    ("Agreement", "agreement", wording.fraction),
    ("Gate metric", "metric", wording.fraction),
)


class _ReceiptLine(BaseModel):
    """What the report says of one receipt; other fields of the receipt are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: datetime
    site: str
    population: str
    what: str
    bytes: int
    sha256: str
    epsilon: Figure
    total_epsilon: Figure
    remaining_epsilon: Figure
    delta: float
    adjacency: str
    unit: str
    cached: bool


def write_report(summary: Summary, receipts: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write the report of `summary` and `receipts` to `path`, complete or not at all.

    A receipt has the fields of `receipts.jsonl`. Raises OSError, and ValidationError for a receipt
    that lacks one.
    """
    write_atomically(path, render_report(summary, receipts))


def write_fronts(summary: Summary, path: Path) -> None:
    """Write the quality of the compressed files against size and latency, as one SVG image.

    Raises OSError.
    """
    plots = front_plots(summary)
    write_atomically(path, _environment().get_template("fronts.svg.j2").render(plots=plots).strip())


def render_report(summary: Summary, receipts: Sequence[Mapping[str, object]]) -> str:
    """The report as HTML. Every name and reason in it is escaped."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            scores=wording.score_rows(summary),
            auc_plots=_present(auc_plot(summary, narrow=narrow) for narrow in (False, True)),
            joining=_joining(summary),
            reliability=reliability_plot(summary.metrics.student_calibration),
            budget=bars.budget_chart(summary),
            fronts=front_plots(summary),
            stages=bars.stage_charts(summary),
            timings=bars.timing_chart(summary),
            receipts=[_ReceiptLine.model_validate(receipt) for receipt in receipts],
            ece_bins=ECE_BINS,
            stage_rows=_STAGE_ROWS,
            totals_known=any(
                site.total_epsilon is not None for site in summary.privacy.sites.values()
            ),
            two_views=any(
                {site.views.everyone, site.views.server} != {site.total_epsilon}
                for site in summary.privacy.sites.values()
            ),
            total_seconds=sum(summary.timings.values()),
        )
    )


def _joining(summary: Summary) -> list[dict[str, object]]:
    """What the report compares: on all test rows, and on each site's own kind where there are."""
    everyone = {name: site.everyone for name, site in summary.sites.items()}
    parts = {"everyone": everyone, "own": gains.own_comparisons(summary.sites)}
    return [
        {
            "name": name,
            "comparisons": comparisons,
            "sentences": gains.sentences(comparisons),
            "plots": _forest_plots(name, comparisons),
        }
        for name, comparisons in parts.items()
        if comparisons
    ]


def _forest_plots(name: str, comparisons: Mapping[str, Comparison]) -> list[object]:
    return _present(forest_plot(comparisons, name=name, narrow=narrow) for narrow in (False, True))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedistill.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fraction": wording.fraction,
        "with_error": wording.with_error,
        "gain": gains.with_error,
        "verdict": gains.verdict,
        "spent": wording.spent,
        "left": wording.left,
        "power": wording.power,
        "size": wording.size,
        "seconds": wording.seconds,
        "percent": wording.percent,
        "budget_words": bars.budget_words,
        "moment": _moment,
        "day_and_time": wording.day_and_time,
        "setting": _setting,
        "in_prose": wording.in_prose,
        "sentence": wording.sentence,
    }
    environment.globals |= {
        "headline": wording.headline,
        "auc_name": wording.auc_name,
        "calibration_sentence": wording.calibration_sentence,
        "dearest": wording.dearest,
        "federated_sentence": wording.federated_sentence,
        "figure_with_error": wording.figure_with_error,
        "mechanisms_differ": wording.mechanisms_differ,
        "person_sentence": wording.person_sentence,
    }
    return environment


def _present(parts: Iterable[object]) -> list[object]:
    return [part for part in parts if part is not None]


def _moment(time: datetime) -> str:
    zone = "" if time.tzinfo is None else f" {time.tzname()}"
    return f"{time:%Y-%m-%d %H:%M:%S}{zone}"


def _setting(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return wording.power(value)
    return str(value) or "not set"
