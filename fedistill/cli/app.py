"""The commands and their options. What they do is in the module of each command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import fedistill
from fedistill.cli import data, dev, encoder, ledger, plan, provision, run, site, site_agent
from fedistill.config import describe_keys

app = typer.Typer(
    name="fedistill",
    help=fedistill.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(dev.app, name="dev")
app.add_typer(encoder.app, name="encoder")
app.add_typer(ledger.app, name="ledger")
app.add_typer(provision.app, name="provision")
site.app.add_typer(site_agent.app)
app.add_typer(site.app, name="site")
app.command()(plan.plan)
app.command()(run.run)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedistill {fedistill.__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Options of every command; `fedistill.cli.entry` reads `--debug` itself."""


@app.command()
def simulate(
    app_dir: Annotated[
        Path,
        typer.Argument(metavar="APP_DIR", hidden=True),  # newer Clicks drop an argument's help
    ],
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="'KEY=VALUE ...'",
            help="Change run-config keys (`fedistill config` lists them), or a TOML file of them.",
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print lines instead of progress bars.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check config and data, show what was read, run nothing."),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep Flower's temporary files, for debugging.")
    ] = False,
) -> None:
    """Run all sites and the server of an app on this machine.

    APP_DIR is a Flower app directory, such as simulations/banks_3.

    Like `flwr run APP_DIR --stream`, with ports and a Flower home of its own, live progress, the
    result as a table, and an exit code that tells the truth: 0 for success, 1 for a run that
    failed, 2 for bad input. No process is left behind.
    """
    from fedistill.cli import simulate as simulation  # imports Flower: half a second

    if dry_run:
        simulation.show_data(app_dir, config or [], Console())
    else:
        simulation.simulate(app_dir, config or [], Console(), plain=plain, keep=keep)


@app.command("config")
def show_keys() -> None:
    """Print the run-config keys, their defaults and their meaning."""
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("default")
    table.add_column("meaning")
    for key in describe_keys():
        default = str(key.default).lower() if isinstance(key.default, bool) else repr(key.default)
        table.add_row(key.name, default.replace("'", '"'), key.meaning)
    Console().print(table, markup=False, highlight=False)
