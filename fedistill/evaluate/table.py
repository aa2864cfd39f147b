"""What the terminal shows when a run ends: who paid what, and what the student scores."""

from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedistill.evaluate import gains, wording
from fedistill.evaluate.summary import Summary


def print_summary(summary: Summary, *, report: Path | None, console: Console | None = None) -> None:
    """Print the tables of `summary` and where its report lies. Fits 80 columns."""
    (console or Console()).print(summary_tables(summary, report=report))


def summary_tables(summary: Summary, *, report: Path | None) -> RenderableType:
    """The tables as one Rich renderable. Names of sites and reasons are never read as markup."""
    parts: list[RenderableType] = [Text(), Text(wording.headline(summary), style="bold")]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in summary.warnings]
    parts += [Text(f"left out: {name}, {why}") for name, why in summary.left_out.items()]
    parts += [Text(), _payments(summary), Text(), _scores(summary)]
    if summary.sites:
        parts += [Text(), _joining(summary)]
    parts += [Text(), _shipped(summary)]
    if report is not None:
        parts.append(_line("report", str(report)))
    return Group(*parts)


def _payments(summary: Summary) -> RenderableType:
    sites = summary.privacy.sites
    if not sites:
        return Text("No site paid anything.")
    differ = wording.mechanisms_differ(sites)
    more = ("mechanism",) if differ else ()
    table = _table("Who paid what", "site", "epsilon", "total", "left", "delta", "sent up", *more)
    for name, site in sites.items():
        wire = summary.wire.sites.get(name)
        table.add_row(
            _name(name),
            wording.spent(site.epsilon),
            wording.spent(site.total_epsilon),
            wording.left(site.remaining_epsilon),
            wording.power(site.delta),
            wording.NOT_DEFINED if wire is None else wording.size(wire.bytes_up),
            *((site.mechanism,) if differ else ()),
        )
    lines: list[RenderableType] = [table]
    if summary.privacy.person is not None:
        lines.append(Text(wording.person_sentence(summary.privacy.person)))
    if floating := wording.float_sites(sites):
        where = f"at {wording.listing(floating)}: their guarantee assumes that it hides enough."
        lines.append(Text(f"Noise in floating point {where}", style="yellow"))
    return Group(*lines)


def _scores(summary: Summary) -> RenderableType:
    title = f"What each scores on {summary.split.test_rows:,} public test rows"
    table = _table(title, "", wording.auc_name(summary), "accuracy", "log loss", "ECE")
    for kind, name, scores in wording.score_rows(summary):
        table.add_row(
            _name(name if kind != "teacher" else f"teacher {name}"),
            wording.with_error(scores, digits=4),
            wording.fraction(scores.accuracy),
            wording.fraction(scores.log_loss),
            wording.fraction(scores.ece),
            style={"shipped": "bold", "reference": "dim"}.get(kind),
        )
    if summary.metrics.federated is None:
        return table
    return Group(table, Text(wording.federated_sentence(summary.metrics.federated, summary)))


def _joining(summary: Summary) -> RenderableType:
    """The shared student's AUC less that of each site's own models, on all test rows."""
    title = "Who gains from joining: AUC of the shared student less the own model's"
    compared = {name: site.everyone for name, site in summary.sites.items()}
    private = gains.has_private(compared)
    table = _table(title, "site", "rows", "weight", "without DP", *["with DP"] * private)
    for name, site in summary.sites.items():
        table.add_row(
            _name(name),
            f"{site.rows:,}",
            "none" if site.weight is None else wording.percent(site.weight),
            gains.with_error(site.everyone.gain),
            *[gains.with_error(site.everyone.gain_private)] * private,
        )
    return Group(table, *(Text(sentence) for sentence in gains.sentences(compared)))


def _shipped(summary: Summary) -> Text:
    stage = summary.shipped_stage
    about = f" ({stage.precision}, {wording.size(stage.bytes)})" if stage else ""
    reason = wording.sentence(summary.shipped.reason)
    return _line("shipped", f"{summary.shipped.file}{about}. {reason}")


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name} ", "bold"), text, overflow="fold")


def _name(text: str) -> Text:
    return Text(text, overflow="ellipsis", no_wrap=True)


def _table(title: str, first: str, *figures: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    # Only a column that may wrap is narrowed for the others; its cells are cut instead.
    table.add_column(first, max_width=30)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table
