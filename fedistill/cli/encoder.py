"""`fedistill encoder`: a public encoder of images from public images alone."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    name="encoder",
    help="Train a public encoder of images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """Keep `train` a command of its own: Typer would make a single one the group itself."""


@app.command()
def train(
    # Newer versions of Click drop an argument's help: the docstring says what each is.
    proxy: Annotated[Path, typer.Argument(metavar="PROXY", hidden=True)],
    out: Annotated[Path, typer.Argument(metavar="OUT", hidden=True)],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 200,
    networks: Annotated[
        int, typer.Option(min=1, max=8, help="Networks side by side, each from a seed of its own.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of training.")] = 0,
    device: Annotated[
        str, typer.Option(help="`cpu`, `cuda`, or `auto`: a GPU if there is one.")
    ] = "auto",
    ignore_columns: Annotated[
        str,
        typer.Option(help="Columns that are no pixels, such as labels, with commas between them."),
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last finished epoch.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it is already there.")
    ] = False,
) -> None:
    """Train an encoder on public images, without labels, and write it as ONNX.

    PROXY holds public images, one a row and a column each pixel: CSV, Parquet or npz, or what
    `fedistill data proxy` wrote. They are square, grey or in colour, at least 8 by 8 pixels. OUT
    ends in .onnx; a run takes it by its full path:

    \b
        fedistill encoder train images.npz images.onnx
        fedistill simulate simulations/banks_3 \\
            -c "dataset=$PWD/all.npz partition=iid encoder=$PWD/images.onnx"

    Use public images only: whatever trains the encoder is published with it. OUT.checkpoint holds
    the training so far and is removed at the end; after a stop, the same command with --resume
    goes on from there.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from fedistill.cli.encoder_training import train_encoder  # imports torch

    columns = (
        TextColumn("epochs"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("epochs", total=epochs * networks)
        made = train_encoder(
            proxy,
            out,
            epochs=epochs,
            networks=networks,
            seed=seed,
            device=device,
            ignore_columns=tuple(n.strip() for n in ignore_columns.split(",") if n.strip()),
            resume=resume,
            force=force,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    typer.echo(f"learned from {made.images:,} images; {made.dimensions} numbers for each")
    typer.echo(f"wrote {out}")
    typer.echo(f"sha256 {made.sha256}")
