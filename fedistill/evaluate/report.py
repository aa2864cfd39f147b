"""The evidence pack: one HTML file that needs no network, no script and no font of its own."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict

from fedistill.evaluate import charts, wording
from fedistill.evaluate.files import write_atomically
from fedistill.evaluate.metrics import ECE_BINS, Figure
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
    cached: bool


def write_report(summary: Summary, receipts: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write the report of `summary` and `receipts` to `path`, complete or not at all.

    A receipt names time, site, population, what, bytes, sha256, epsilon, total_epsilon,
    remaining_epsilon and cached. Raises OSError, and ValidationError for a receipt without these.
    """
    write_atomically(path, render_report(summary, receipts))


def render_report(summary: Summary, receipts: Sequence[Mapping[str, object]]) -> str:
    """The report as HTML. Every name and reason in it is escaped."""
    plots = (charts.auc_plot(summary, narrow=False), charts.auc_plot(summary, narrow=True))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            scores=wording.score_rows(summary),
            auc_plots=[plot for plot in plots if plot is not None],
            budget=charts.budget_chart(summary),
            stages=charts.stage_charts(summary),
            timings=charts.timing_chart(summary),
            receipts=[_ReceiptLine.model_validate(receipt) for receipt in receipts],
            ece_bins=ECE_BINS,
            stage_rows=_STAGE_ROWS,
            two_views=any(
                {site.views.everyone, site.views.server} != {site.total_epsilon}
                for site in summary.privacy.sites.values()
            ),
            total_seconds=sum(summary.timings.values()),
        )
    )


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
        "spent": wording.spent,
        "left": wording.left,
        "power": wording.power,
        "size": wording.size,
        "seconds": wording.seconds,
        "budget_words": charts.budget_words,
        "moment": _moment,
        "setting": _setting,
        "in_prose": wording.in_prose,
        "sentence": wording.sentence,
    }
    environment.globals |= {
        "headline": wording.headline,
        "auc_name": wording.auc_name,
        "dearest": wording.dearest,
    }
    return environment


def _moment(time: datetime) -> str:
    zone = "" if time.tzinfo is None else f" {time.tzname()}"
    return f"{time:%Y-%m-%d %H:%M:%S}{zone}"


def _setting(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return wording.power(value)
    return str(value) or "not set"
