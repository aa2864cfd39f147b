"""`fedistill dev`: a whole secured federation on this machine, to try it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedistill.cli.ledger import Format

if TYPE_CHECKING:
    from fedistill.cli.dev_folder import DevFolder
    from fedistill.cli.dev_run import ServiceState

app = typer.Typer(
    name="dev",
    help="Try a deployment: three banks, their agents and the server, all on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder", metavar="DIR", help="Where all of it lies. Default: $FEDISTILL_HOME/dev."
    ),
]


@app.command()
def up(folder: _Folder = None) -> None:
    """Make a federation of three banks, and start all of its processes in the background.

    Rows of the shipped set credit_default, keys, startup kits, pins, policies and ledgers as three
    sites would have them; a SuperLink with TLS and its front, three SuperNodes that authenticate,
    three agents. Ports are free ones of loopback. Then fedistill dev run starts a run, and
    fedistill dev down ends all of it. Ctrl-C undoes what was done so far.
    """
    from fedistill.cli.dev_services import start

    chosen = _chosen(folder)
    start(chosen, Console())
    typer.echo("Start a run:")
    typer.echo(f"  {chosen.order('run')}")
    typer.echo("or, with Flower's own command:")
    typer.echo(f"  {flwr_run(chosen)}")
    typer.echo(f"End and remove all of it: {chosen.order('down')}")


@app.command()
def run(
    folder: _Folder = None,
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
) -> None:
    """Start a run by flwr run, show how far it has come, and print the result.

    The run folder is $FEDISTILL_HOME/runs/RUN, as it was when the federation was started; it
    stays when the federation goes. Exit code 0: success; 1: the run failed; 2: bad input.
    """
    from fedistill.cli.dev_run import run as submit

    submit(_chosen(folder), config or [], Console(), plain=plain)


@app.command()
def status(
    folder: _Folder = None,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Print the processes, their memory and their logs. Exit code 1: one does not run."""
    from fedistill.cli.dev_run import check_all_run, states

    chosen = _chosen(folder)
    services = states(chosen)
    if form is Format.JSON:
        typer.echo(json.dumps({"services": [asdict(each) for each in services]}, indent=2))
    else:
        _print(services)
    check_all_run(chosen, services)


@app.command()
def down(folder: _Folder = None) -> None:
    """End every process of the federation and remove its folder; run folders stay.

    Finds them also after a kill of fedistill dev up. Touches no folder that it did not make.
    """
    from fedistill.cli.dev_folder import read_mark
    from fedistill.cli.dev_services import end

    chosen = _chosen(folder)
    count = end(chosen, read_mark(chosen))
    typer.echo(f"ended {count} processes, removed {chosen.path}")


def flwr_run(folder: "DevFolder") -> str:
    """The command that starts a run without fedistill."""
    import shlex

    home, app_directory = str(folder.workshop.flower_home), str(folder.app)
    return f"FLWR_HOME={shlex.quote(home)} flwr run {shlex.quote(app_directory)} --stream"


def _print(services: "list[ServiceState]") -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "state", "pid", "memory", "log"):
        table.add_column(heading, no_wrap=heading != "log", overflow="fold")
    for each in services:
        state = ("runs", str(each.pid), f"{each.rss / 2**20:,.0f} MiB")
        table.add_row(each.name, *(state if each.pid else ("does not run", "", "")), each.log)
    Console().print(table, markup=False, highlight=False)


def _chosen(folder: Path | None) -> "DevFolder":
    from fedistill.cli.dev_folder import chosen_folder

    return chosen_folder(folder)
