"""`fedistill site`: what a site does on its own machine, before and while it takes part."""

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedistill.cli.ledger import Format
from fedistill.errors import BadInput

if TYPE_CHECKING:
    from fedistill.provision.preflight import Check
    from fedistill.provision.preflight_data import Data
    from fedistill.provision.site_folder import SiteFolder

app = typer.Typer(
    name="site",
    help="Make a site's keys, join a project, check that all is ready, and run its agent.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Newer versions of Click drop an argument's help: the docstrings say what each is.
_Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="DIR", help="The site's own folder. Default: $FEDISTILL_HOME/site."
    ),
]
_Site = Annotated[str, typer.Argument(metavar="SITE", hidden=True)]


@app.command()
def init(
    site: _Site,
    directory: _Dir = None,
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Make another SuperNode key, as after a revocation.")
    ] = False,
) -> None:
    """Make the site's keys, which stay here, and a request to send to the coordinator.

    SITE is the name that the coordinator lists.

    Keys that are there stay as they are; the request is written anew. It holds public keys only.
    Read the fingerprint to the coordinator by telephone when they sign, and to the other sites.
    """
    from fedistill.privacy.ledger_key import fingerprint
    from fedistill.provision.fingerprints import grouped
    from fedistill.provision.site_folder import init_site

    folder = _folder(directory)
    identity = init_site(folder, site, now=_now(), new_keys=new_keys)
    typer.echo(f"fingerprint of {site}:\n  {grouped(fingerprint(identity.public))}")
    typer.echo(f"send to the coordinator: {folder.request}")


@app.command()
def join(
    kit: Annotated[Path, typer.Argument(metavar="KIT", hidden=True)],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The project's, as the coordinator read it to you; for the first kit."),
    ] = None,
    directory: _Dir = None,
) -> None:
    """Take up a startup kit: the first one, or a newer one over an older.

    KIT is the SITE.kit.zip that the coordinator sent.

    Checks that the project's key signed it, that nothing in it was changed, and that it is for
    this site's own keys. Peers are listed with their fingerprints; compare each with its site, for
    a coordinator could invent sites, and then run fedistill site pin.
    """
    from fedistill.provision.fingerprints import grouped
    from fedistill.provision.site_folder import join as take_up

    folder = _folder(directory)
    joined = take_up(folder, kit, fingerprint=fingerprint, now=_now())
    member = joined.membership
    typer.echo(f"{member.site} is in project {member.project} until {member.expires:%Y-%m-%d}")
    typer.echo(f"server: {member.address}")
    for site in joined.dropped:
        typer.echo(f"pin of {site} dropped: it left, or has another identity now")
    for peer in joined.unpinned:
        typer.echo(f"not compared yet: {peer.site}\n  {grouped(peer.fingerprint)}")
    if joined.unpinned:
        typer.echo("Compare with each of them, then: fedistill site pin SITE FINGERPRINT")


@app.command()
def pin(
    site: _Site,
    fingerprint: Annotated[str, typer.Argument(metavar="FINGERPRINT", hidden=True)],
    directory: _Dir = None,
) -> None:
    """Pin another site's identity, whose fingerprint its own people read to you.

    SITE is its name. FINGERPRINT is what they read: sixteen groups of four.
    """
    from fedistill.provision.site_folder import pin as keep

    folder = _folder(directory)
    keep(folder, site, fingerprint)
    typer.echo(f"pinned {site} in {folder.pins}")


@app.command()
def preflight(
    directory: _Dir = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave out what needs the server.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private rows: .csv, .parquet or .npz.")
    ] = None,
    proxy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The published proxy set; with --data.")
    ] = None,
    label_column: Annotated[str, typer.Option(help="The column to predict; with --data.")] = "",
    classes: Annotated[
        str, typer.Option(help="The agreed classes, parted by commas; with --data.")
    ] = "",
    unit_column: Annotated[str, typer.Option(help="Whom a row is about; with --data.")] = "",
    ignore_columns: Annotated[
        str, typer.Option(help="Columns that are no features, parted by commas; with --data.")
    ] = "",
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Check keys, certificates, pins, policy, disk, server, clock, registration and data.

    Each line says what was found, and how to mend it. With --data the rows are checked against the
    proxy set; nothing about them leaves this machine. Exit code 0: all is well; 1: warnings; 2:
    errors.
    """
    from fedistill.provision.preflight import exit_code, local_checks
    from fedistill.provision.preflight_server import server_checks

    chosen = _data(data, proxy, label_column, classes, unit_column, ignore_columns)
    folder, now = _folder(directory), _now()
    checks, membership = local_checks(folder, now=now)
    if membership is not None and not offline:
        checks += server_checks(folder, membership, now=now)
    if chosen is not None:
        from fedistill.provision.preflight_data import data_checks

        checks += data_checks(folder, chosen)
    if form is Format.JSON:
        typer.echo(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _print(checks)
    raise typer.Exit(exit_code(checks))


def _data(
    file: Path | None,
    proxy: Path | None,
    label_column: str,
    classes: str,
    unit_column: str,
    ignore_columns: str,
) -> "Data | None":
    if file is None:
        return None
    if proxy is None or not label_column or not classes:
        raise BadInput("--data needs --proxy, --label-column and --classes: give all of them")
    from fedistill.provision.preflight_data import Data

    return Data(
        file=file.absolute(),
        proxy=proxy,
        label_column=label_column,
        classes=_names(classes),
        unit_column=unit_column,
        ignore_columns=_names(ignore_columns),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _print(checks: "list[Check]") -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        said = f"{check.found}\n-> {check.mend}" if check.mend else check.found
        table.add_row(check.status, check.name, said)
    Console().print(table, markup=False, highlight=False)


def _folder(directory: Path | None) -> "SiteFolder":
    from fedistill.federation.run_folder import HOME_VARIABLE
    from fedistill.provision.site_folder import SiteFolder

    home = Path(os.environ.get(HOME_VARIABLE) or "~/.fedistill").expanduser()
    return SiteFolder((directory or home / "site").absolute())


def _now() -> datetime:
    return datetime.now(UTC)
