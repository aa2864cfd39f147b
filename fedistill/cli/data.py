"""`fedistill data`: the shipped data sets, and how one looks as a file of one's own."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="data",
    help="Look at the shipped data sets, write one as a file like your own, and embed texts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Newer versions of Click drop an argument's help: the docstrings say what each is.
_Name = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]
_File = Annotated[Path, typer.Argument(metavar="FILE", hidden=True)]
_Out = Annotated[Path, typer.Argument(metavar="OUT", hidden=True)]


@app.command("list")
def list_sets() -> None:
    """Print the shipped data sets.

    A run uses a set by its name:

    \b
        fedistill simulate simulations/banks_3 -c dataset=credit_default

    COLUMNS counts features, which are neither the label nor the site column. Where a set has a site
    column, `site-column` takes its name, and the sites are those of the data; otherwise
    `partition` deals the rows out to sites.
    """
    from fedistill.cli.shipped_file import describe_sets, licences_in_words  # imports Arrow

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "rows", "columns", "classes", "label", "site column"):
        counted = heading in ("rows", "columns", "classes")
        table.add_column(heading, justify="right" if counted else "left", no_wrap=True)
    sets = describe_sets()
    for each in sets:
        counts = (f"{each.rows:,}", f"{each.columns:,}", f"{each.classes:,}")
        table.add_row(each.name, *counts, each.label_column, each.site_column or "none")
    Console().print(table, markup=False, highlight=False)
    typer.echo(f"Licence: {licences_in_words(sets)}")
    typer.echo("As a file like your own: fedistill data write NAME FILE.csv")


@app.command()
def write(
    name: _Name,
    file: _File,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE if it is already there.")
    ] = False,
) -> None:
    """Write a shipped data set as a CSV or Parquet file.

    NAME is a shipped set, as `fedistill data list` prints it. FILE ends in .csv or .parquet.

    The file looks as your own may look: one row per record, texts for categories and classes,
    nothing where a value is missing. A run that reads it by its path sees the same rows as one
    that uses the set by its name:

    \b
        fedistill data write credit_default loans.csv
        fedistill simulate simulations/banks_3 --dry-run \\
            -c "dataset=$PWD/loans.csv label-column=default_next_month"
    """
    from fedistill.cli.shipped_file import roles_in_words, write_set  # imports Arrow

    rows = write_set(name, file, force=force)
    typer.echo(f"wrote {rows:,} rows to {file}")
    typer.echo(f"to use them: -c {roles_in_words(name, file)}")


@app.command()
def embed(
    file: _File,
    out: _Out,
    column: Annotated[str, typer.Option("--column", help="The column of texts to embed.")],
    encoder: Annotated[
        str, typer.Option("--encoder", help="Import path of a public encoder of texts.")
    ] = "fedistill.features.text_encoders:minilm",
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it is already there.")
    ] = False,
) -> None:
    """Replace a column of free text by a public encoder's numbers.

    FILE and OUT end in .csv or .parquet. OUT has all other columns as they are, and for each text
    of COLUMN the numbers COLUMN_0, COLUMN_1, ... Each text is encoded alone. Everyone who takes
    part does this to their own file, with the same encoder:

    \b
        fedistill data embed complaints.csv complaints.parquet --column text
        fedistill simulate simulations/banks_3 \\
            -c "dataset=$PWD/complaints.parquet label-column=fraud partition=iid"
    """
    from rich.progress import track

    from fedistill.cli.embedded_file import embed_file  # imports Arrow

    screen = Console(stderr=True)
    rows, numbers = embed_file(
        file,
        out,
        column=column,
        encoder=encoder,
        force=force,
        track=lambda texts: track(texts, "texts", console=screen, transient=True),
    )
    typer.echo(f"wrote {rows:,} rows to {out}: {numbers:,} numbers for each text of {column}")


@app.command()
def proxy(
    file: _File,
    out: _Out,
    ignore_columns: Annotated[
        str,
        typer.Option(help="Columns to leave out, such as labels, with commas between them."),
    ] = "",
    encoder: Annotated[
        str, typer.Option("--encoder", help="A public encoder, as the run-config key names it.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it is already there.")
    ] = False,
) -> None:
    """Make the public proxy set of a deployment from public rows.

    FILE is a CSV, Parquet or npz file of public rows. OUT is what the coordinator publishes; its
    sha256, which is printed, is what every site approves. These rows alone decide what each column
    means and which categories it has. OUT holds them in the clear.
    """
    from fedistill.cli.proxy_file import write_proxy  # imports Arrow

    names = tuple(name.strip() for name in ignore_columns.split(",") if name.strip())
    made = write_proxy(file, out, ignore_columns=names, encoder=encoder, force=force)
    typer.echo(f"wrote {len(made.rows):,} rows of {len(made.columns)} columns to {out}")
    typer.echo(f"sha256 {made.sha256}")
