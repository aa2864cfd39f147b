"""`fedistill plan`: which mechanism to use at which epsilon, from public data alone."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedistill.errors import BadInput

if TYPE_CHECKING:
    from fedistill.planner import Forecast, PublicRows, Request

_BLOCKS = "▁▂▃▄▅▆▇█"


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


def plan(
    proxy: Annotated[
        str,
        typer.Option(metavar="FILE", help="Public rows: .csv, .parquet, .npz, or a shipped set."),
    ],
    rows_at_least: Annotated[
        int, typer.Option(help="Rows that each site declares to have at least.")
    ],
    sites: Annotated[int, typer.Option(help="Number of sites.")] = 3,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 2,
    epsilon: Annotated[float, typer.Option(help="What one release may cost.")] = 1.0,
    delta: Annotated[float, typer.Option(help="Delta of epsilon.")] = 1e-5,
    label_column: Annotated[
        str, typer.Option(help="Public labels in FILE, if it has some; npz and shipped sets too.")
    ] = "",
    teacher: Annotated[str, typer.Option(help="Model of sharded and clipped.")] = "",
    mechanism: Annotated[
        list[str] | None, typer.Option(help="Compare these only; may be repeated.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Repeat until about so long: more repeats, smaller errors.")
    ] = 40.0,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the curves as a page.")
    ] = None,
) -> None:
    """Foretell what each mechanism is good for, from public data alone.

    Touches no private row. Public rows are split; virtual sites are made of one part, the real
    mechanisms answer them with their real noise, and the ensemble is scored on the other part, at
    epsilons from a quarter to eight times the one you ask. Needs less than a minute, as a rule:

    \b
        fedistill plan --proxy proxy.parquet --rows-at-least 6500 --sites 3 --epsilon 1

    With --label-column the scores resemble your task's. Without, labels are made up by random
    functions, and only the ranking of the mechanisms says something. NOISE is that of one site's
    answer in nats of log-odds, UP the bytes a site sends, TIME what it computes.
    """
    from fedistill.planner import Request, read_public_rows

    if not 2 <= classes <= 1000:
        raise BadInput(f"classes={classes} must be from 2 to 1000: give such a --classes")
    request = Request(
        rows_at_least=rows_at_least,
        num_sites=sites,
        epsilon=epsilon,
        delta=delta,
        teacher=teacher,
        mechanisms=tuple(mechanism or ()),
        seconds=seconds,
    )
    public = read_public_rows(proxy, num_classes=classes, label_column=label_column)
    found = _with_progress(public, request)
    if form is Format.JSON:
        from fedistill.planner.results import as_json

        typer.echo(json.dumps(as_json(found), indent=2))
    else:
        _print(found, Console())
    if plot is not None:
        _write(found, plot)


def _with_progress(public: "PublicRows", request: "Request") -> "Forecast":
    from fedistill.planner import forecast

    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("planning", total=None)
        return forecast(
            public,
            request,
            lambda done, total, what: progress.update(
                task, completed=done, total=total, description=what
            ),
        )


def _print(forecast: "Forecast", console: Console) -> None:
    from fedistill.planner.results import curves, points

    metric = "AUC" if forecast.metric == "auc" else "accuracy"
    table = Table(box=None, pad_edge=False)
    headings = ("mechanism", "epsilon", metric, "±", "draws", "noise", "up", "time")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for point in points(forecast):
        if point.epsilon == forecast.request.epsilon:
            table.add_row(
                point.mechanism,
                f"{point.epsilon:g}",
                f"{point.score:.3f}",
                "" if point.standard_error is None else f"{point.standard_error:.3f}",
                str(point.draws),
                f"{point.noise_nats:.2g}",
                f"{point.bytes_up:,}",
                f"{point.seconds:.2g} s",
            )
    console.print(table, markup=False, highlight=False)
    console.print()
    drawn = curves(forecast)
    values = [value for curve in drawn.values() for _, value in curve]
    width = max(map(len, drawn))
    for name, curve in drawn.items():
        bars = "".join(_bar(value, min(values), max(values)) for _, value in curve)
        said = "  ".join(f"{value:.3f}" for _, value in curve)
        console.print(f"{name:<{width}}  {bars}  {said}", markup=False, highlight=False)
    epsilons = ", ".join(f"{epsilon:g}" for epsilon, _ in next(iter(drawn.values())))
    lines = [f"{metric} of one draw at epsilon {epsilons}", "", forecast.advice.reason]
    lines += [f"Not tried: {name}: {why}" for name, why in forecast.skipped.items()]
    for line in (*lines, *forecast.notes):
        console.print(line, markup=False, highlight=False)


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / max(high - low, 1e-9)
    return _BLOCKS[min(int(share * len(_BLOCKS)), len(_BLOCKS) - 1)]


def _write(forecast: "Forecast", path: Path) -> None:
    from fedistill.evaluate.files import write_atomically
    from fedistill.planner.results import render_page

    try:
        write_atomically(path, render_page(forecast))
    except OSError as error:
        raise BadInput(
            f"plot={str(path)!r} cannot be written ({error.strerror}): name another file"
        ) from error
    typer.echo(f"wrote {path}", err=True)
