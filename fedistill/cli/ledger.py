"""`fedistill ledger`: what a site has spent, and proof that nobody edited it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedistill.errors import DataError
from fedistill.privacy import ledger_file
from fedistill.privacy.chain import anchor_path

app = typer.Typer(
    name="ledger",
    help="Read a site's privacy ledger: what was spent, on what, and whether anyone edited it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Newer versions of Click drop an argument's help: the docstrings say what PATH is.
_Path = Annotated[Path, typer.Argument(metavar="PATH", hidden=True)]


@app.command()
def show(path: _Path) -> None:
    """Print what was spent, and on what.

    PATH is a site's ledger, such as RUN/bank_a.ledger.db.

    EPSILON is the cost of the release alone. SPENT is the cost of it and all before it together,
    which is less than the sum: releases compose in Renyi divergence, not in epsilon. A charge
    without a stored answer is budget that a crash wasted; it is never refunded.
    """
    _require_file(path)
    contents = ledger_file.read(path)
    header = contents.header
    table = Table(
        title=f"population {header['population']}, {header['adjacency']} of one {header['unit']}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("when (UTC)", "mechanism", "question"):
        table.add_column(column, no_wrap=True)
    for column in ("epsilon", "spent", "budget", "delta"):
        table.add_column(column, justify="right", no_wrap=True)
    for charge in contents.charges:
        table.add_row(
            charge.time[:16].replace("T", " "),
            str(charge.description.get("mechanism", "")),
            charge.question[:12],
            f"{charge.epsilon:.4g}",
            f"{charge.spent_epsilon:.4g}",
            f"{charge.budget_epsilon:.4g}",
            f"{charge.delta:g}",
        )
    Console().print(table, markup=False, highlight=False)
    typer.echo(f"Not checked here: fedistill ledger verify {path}")


@app.command()
def verify(path: _Path) -> None:
    """Check that no charge was edited, removed or reordered.

    PATH is a site's ledger, such as RUN/bank_a.ledger.db.

    Recomputes the hash chain, compares it with the anchor file beside the ledger (PATH.anchor), and
    checks the stored answers. Exit code 0: valid; 1: not valid; 2: there is no ledger at PATH.

    Without the anchor the finding is "prefix valid, completeness unknown": a chain that was cut
    short is still a chain. Whoever rewinds ledger and anchor together is not seen from here.
    """
    _require_file(path)
    result = ledger_file.verify(path)
    noun = "charge" if result.entries == 1 else "charges"
    typer.echo(f"{path}: {result.entries} {noun}: {result.message}")
    if not result.valid:
        raise typer.Exit(1)


def _require_file(path: Path) -> None:
    # A ledger that is gone while its anchor remains is a finding, not a mistyped path.
    if not path.is_file() and not anchor_path(path).is_file():
        raise DataError(f"PATH={path} is no ledger: give the path of a .ledger.db file")
