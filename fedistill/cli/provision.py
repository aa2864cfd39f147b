"""`fedistill provision`: what the coordinator does to let sites in, keep them, and put them out."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedistill.cli.ledger import Format
from fedistill.errors import ProvisionError, RunFailed

if TYPE_CHECKING:
    from fedistill.provision.coordinator import Made
    from fedistill.provision.nodes import Nodes
    from fedistill.provision.project import Workshop
    from fedistill.provision.registry import Registration

app = typer.Typer(
    name="provision",
    help="Let sites into a project: certificates, startup kits, registration, revocation.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Newer versions of Click drop an argument's help: the docstrings say what each is.
_Project = Annotated[
    Path,
    typer.Option("--project", metavar="FILE", help="The project file; the rest lies beside it."),
]
_DEFAULT = Path("project.toml")
_Site = Annotated[str, typer.Argument(metavar="SITE", hidden=True)]


@app.command()
def init(
    project: Annotated[Path, typer.Argument(metavar="[PROJECT]", hidden=True)] = _DEFAULT,
) -> None:
    """Make the project's key and the server's certificate, beside the project file.

    PROJECT is a TOML file with name, hosts and sites; server/project.toml is an example.

    The private keys (project.key, server.key) have mode 0600 and never leave this machine. Nothing
    that is there is overwritten. Tell the sites the fingerprint by telephone or on paper, not by
    the way that kits travel.
    """
    from fedistill.provision.coordinator import init as make

    made = make(_workshop(project), now=_now())
    _say_fingerprint("project", made.fingerprint)
    typer.echo("Next: sites run fedistill site init, and send their request.json")


@app.command()
def sign(
    request: Annotated[Path, typer.Argument(metavar="REQUEST", hidden=True)],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The site's, as its people read it to you; else you are asked."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The site has other keys than before.")
    ] = False,
    project: _Project = _DEFAULT,
) -> None:
    """Take a site in: check its request, and write new kits for all sites.

    REQUEST is the request.json that fedistill site init wrote at the site.

    Both signatures in it are checked; that it is that site's, only people can check: by its
    fingerprint. Signing the same request again renews the registration.
    """
    from fedistill.provision import coordinator
    from fedistill.provision.fingerprints import check

    asked = coordinator.read_request(request)
    _say_fingerprint(asked.site, asked.fingerprint)
    if fingerprint is not None:
        check(fingerprint, asked.fingerprint, "--fingerprint", f"{asked.site}'s request")
    elif not sys.stdin.isatty():
        raise ProvisionError(
            "--fingerprint is missing, and nobody is at the keyboard to be asked: give the one "
            f"that {asked.site} read to you"
        )
    else:
        typer.confirm(f"Did {asked.site} read these groups to you?", abort=True)
    made = coordinator.sign(_workshop(project), asked, now=_now(), replace=replace)
    _say_kits(made)
    typer.echo("Next, on the server: fedistill provision register")


@app.command()
def register(project: _Project = _DEFAULT) -> None:
    """Tell the SuperLink on this machine which SuperNodes may connect, and which no longer.

    Registers sites that were signed; removes those that were revoked, have expired, or got other
    keys. Doing it again changes nothing. It reads project.toml, ca.crt and registry.json, and no
    private key.
    """
    from fedistill.provision.flower import register as bring_in_line

    added, removed = bring_in_line(_workshop(project), now=_now())
    for site in removed:
        typer.echo(f"removed {site}")
    for site in added:
        typer.echo(f"registered {site}")
    if not added and not removed:
        typer.echo("nothing to change")


@app.command()
def revoke(site: _Site, project: _Project = _DEFAULT) -> None:
    """Put a site out: remove its SuperNode, and write kits without it for the others.

    SITE is the name of a site that was signed.

    Its SuperNode is removed from the SuperLink at once and cannot connect again. Send the new kits,
    so that the others drop its pin. Where the SuperLink runs on another machine, copy registry.json
    there and run fedistill provision register. Exit code 1: revoked here, but the SuperLink did not
    answer.
    """
    from fedistill.provision import coordinator
    from fedistill.provision.flower import remove

    made = coordinator.revoke(_workshop(project), site, now=_now())
    _say_kits(made)
    try:
        removed = remove(_workshop(project), now=_now())
    except RunFailed as error:
        raise RunFailed(f"{site} is revoked here, but may still connect: {error}") from error
    if site in removed:
        typer.echo(f"{site} is revoked, and its SuperNode removed")
        return
    typer.echo(f"{site} is revoked, and no SuperNode of it was registered from here")
    typer.echo("Where the SuperLink runs on another machine, copy registry.json there, and run")
    typer.echo("fedistill provision register there: until then the site may still connect")


@app.command()
def renew(project: _Project = _DEFAULT) -> None:
    """Make new certificates and kits before the old ones expire; keys of sites stay.

    The project's fingerprint stays the same. Restart SuperLink and front, which read the
    certificate when they start, and send the kits: fedistill site join takes them over the old.
    """
    from fedistill.provision.coordinator import renew as make

    made = make(_workshop(project), now=_now())
    _say_fingerprint("project", made.fingerprint)
    _say_kits(made)


@app.command()
def status(
    project: _Project = _DEFAULT,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Print the project's fingerprint, and each site's with its registration."""
    from fedistill.provision import coordinator
    from fedistill.provision.authority import fingerprint_of
    from fedistill.provision.fingerprints import grouped
    from fedistill.provision.nodes import Nodes
    from fedistill.provision.registry import Registry

    workshop, now = _workshop(project), _now()
    fingerprint = fingerprint_of(coordinator.load_certificate(workshop))
    registry, nodes = Registry.load(workshop.registry), Nodes.load(workshop.nodes)
    rows = [
        {
            "site": each.site,
            "fingerprint": each.fingerprint,
            "state": _state(each, now),
            "superlink": _at_superlink(each.supernode, nodes),
            "expires": each.expires.isoformat(timespec="seconds"),
        }
        for each in sorted(registry.sites.values(), key=lambda each: each.site)
    ]
    if form is Format.JSON:
        typer.echo(json.dumps({"fingerprint": fingerprint, "sites": rows}, indent=2))
        return
    _say_fingerprint("project", fingerprint)
    table = Table(box=None, pad_edge=False)
    for heading in ("site", "state", "superlink", "expires", "fingerprint"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        shown = grouped(row["fingerprint"]).replace("-", " ")
        table.add_row(row["site"], row["state"], row["superlink"], row["expires"][:10], shown)
    Console().print(table, markup=False, highlight=False)


@app.command()
def front(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104
    project: _Project = _DEFAULT,
) -> None:
    """Open the server's port to sites, and to nothing but SuperNodes that authenticate.

    Forwards Flower's Fleet API to the SuperLink, which listens on this machine's loopback only.
    Whoever reaches a SuperLink itself may register keys and start runs. Runs until it is stopped.
    """
    from fedistill.provision.front import serve

    serve(_workshop(project), host=host)


def _state(registration: "Registration", now: datetime) -> str:
    if registration.revoked is not None:
        return "revoked"
    return "signed" if registration.is_active(now) else "expired"


def _at_superlink(key: str, nodes: "Nodes") -> str:
    if key in nodes.registered:
        return "registered"
    return "removed" if key in nodes.removed else "unknown"


def _workshop(project: Path) -> "Workshop":
    from fedistill.provision.project import Workshop

    return Workshop(project)


def _now() -> datetime:
    return datetime.now(UTC)


def _say_fingerprint(whose: str, fingerprint: str) -> None:
    from fedistill.provision.fingerprints import grouped

    typer.echo(f"fingerprint of {whose}:\n  {grouped(fingerprint)}")


def _say_kits(made: "Made") -> None:
    for site, path in made.kits.items():
        typer.echo(f"kit of {site}: {path}")
