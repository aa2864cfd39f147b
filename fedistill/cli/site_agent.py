"""`fedistill site start` and what its owner does beside it: status, ledger and approvals."""

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedistill.cli.ledger import Format
from fedistill.errors import BadInput, RunFailed
from fedistill.log_lines import LogFormat

if TYPE_CHECKING:
    from fedistill.privacy.receipts_verify import ReceiptCheck
    from fedistill.site.approvals import Approvals, Decision
    from fedistill.site.operating import Standing
    from fedistill.site.site_config import SiteConfig

app = typer.Typer()  # nameless: its commands are `fedistill site ...`

_Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The agent's file, such as agent.toml.")
]
# Newer versions of Click drop an argument's help: the docstrings say what it is.
_Run = Annotated[str, typer.Argument(metavar="RUN", hidden=True)]

_PATIENCE = 3.0  # seconds


class _Level(StrEnum):
    INFO = "info"
    DEBUG = "debug"


@app.command("new-ledger")
def new_ledger(config: _Config) -> None:
    """Begin the site's ledger, once: there must be none.

    An agent never begins one by itself, so that a ledger which was deleted brings no budget back.
    Makes the site's key too, unless there is one.
    """
    from fedistill.privacy.ledger_key import create_key
    from fedistill.site import Policy, open_ledger

    site = _load(config)
    policy = Policy.load(site.policy_path)
    if site.ledger_path.exists():
        raise BadInput(f"ledger-path={str(site.ledger_path)!r} is there already: nothing was done")
    site.ledger_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_key(site.key_path)
    with open_ledger(policy, site.ledger_path, create=True, key=site.key_path):
        typer.echo(f"ledger of population {policy.population}: {site.ledger_path}")


@app.command("confirm-data")
def confirm_data(config: _Config) -> None:
    """Register the file of private rows as it is now, after it changed.

    Do so where its rows are about the population that the policy names: they are charged to the
    same budget. The agent does not start on a file that nobody confirmed.
    """
    from fedistill.site.registered_data import confirm_data
    from fedistill.site.site_config import SiteConfig

    site = SiteConfig.load(config)
    typer.echo(f"registered: sha256 {confirm_data(site)} of {site.data_path}")


@app.command()
def start(
    config: _Config,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="Sentences, or one JSON object a line.")
    ] = LogFormat.TEXT,
    log_level: Annotated[
        _Level, typer.Option("--log-level", help="How much to log; never a row, at any level.")
    ] = _Level.INFO,
) -> None:
    """Answer questions until SIGTERM, which lets a question under way finish.

    Reads the private rows once. Whatever is asked, the site's policy is asked first. Peers are the
    sites that fedistill site pin pinned beside the key, and those in the policy's [peers]; the
    server's key is the kit's, or the policy's server-key. Log lines go to stderr, with levels for
    journald where it listens. What may quote a row goes to the file that private-log-path names,
    mode 0600, and nowhere else.
    """
    from fedistill.provision.peers import with_provisioned
    from fedistill.provision.site_folder import SiteFolder
    from fedistill.site import Policy
    from fedistill.site.daemon import run_agent
    from fedistill.site.daemon_log import log_to_stderr

    log_to_stderr(log_format, logging.DEBUG if log_level is _Level.DEBUG else logging.INFO)
    site = _load(config)
    folder = SiteFolder(site.key_path.parent)
    policy = with_provisioned(folder, Policy.load(site.policy_path))
    run_agent(site, policy, expires=_expires(site))


@app.command()
def status(
    config: _Config,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Print what the agent does and what is left of the budget.

    Exit code 0: the agent runs; 1: it does not, or the ledger cannot vouch for the budget; 2: a
    file of the site cannot be used.
    """
    from fedistill.site.operating import standing

    site = _load(config)
    found = standing(
        site,
        waiting=_waiting(_queue(site)),
        expires=_expires(site),
        now=datetime.now(UTC),
        patience=_PATIENCE,
    )
    if form is Format.JSON:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _print(_in_rows(found))
    if not found.running:
        raise RunFailed(
            f"nobody answers on {site.owner_socket_path}: fedistill site start --config {config}"
        )


@app.command()
def receipts(
    config: _Config,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Print everything that ever left the site, once its receipts are checked.

    SIGNED says who signed a receipt: the site, or both, as the server took just those bytes.
    SPENT is all that the population had spent by then. Exit code 1: receipts were edited, cut or
    added, or the ledger does not hold what they name.
    """
    from fedistill.privacy.receipts_verify import verify_receipts
    from fedistill.provision.peers import server_key_of
    from fedistill.provision.site_folder import SiteFolder
    from fedistill.site import Policy

    site = _load(config)
    key = server_key_of(SiteFolder(site.key_path.parent), Policy.load(site.policy_path))
    check = verify_receipts(site.ledger_path, site.receipts_path, server_key=key)
    if form is Format.JSON:
        listed = [
            receipt.model_dump(mode="json") | {"countersigned": number in check.countersigned}
            for number, receipt in enumerate(check.receipts, start=1)
        ]
        found = {"valid": check.valid, "message": check.message, "receipts": listed}
        typer.echo(json.dumps(found, indent=2))
    else:
        _print_receipts(check)
    if not check.valid:
        raise typer.Exit(1)


def _print_receipts(check: "ReceiptCheck") -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("no.", "when (UTC)", "run", "bytes", "sha256", "epsilon", "spent", "signed"):
        table.add_column(heading, overflow="fold")  # in 80 columns nothing may be cut off
    for number, receipt in enumerate(check.receipts, start=1):
        table.add_row(
            str(number),
            receipt.time[:16].replace("T", " "),
            receipt.run,
            f"{receipt.bytes:,}",
            receipt.sha256[:8],
            "cached" if receipt.cached else f"{receipt.epsilon:.4g}",
            f"{receipt.total_epsilon:.4g}",
            "both" if number in check.countersigned else "site",
        )
    Console().print(table, markup=False, highlight=False)
    typer.echo(check.message)


@app.command()
def pending(config: _Config) -> None:
    """Print the questions that wait for you, where the policy has approval = "by-hand"."""
    from fedistill.site.approvals import Decision

    queue = _queue(_load(config))
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "asked (UTC)", "mechanism", "epsilon", "delta", "trust", "proxy set"):
        table.add_column(heading, no_wrap=True)
    waiting = [entry for entry in queue.entries() if entry.decision is Decision.WAITING]
    for entry in waiting:
        asked = entry.question
        table.add_row(
            entry.run,
            entry.asked[:16].replace("T", " "),
            asked.mechanism,
            f"{asked.epsilon:g}",
            f"{asked.delta:g}",
            asked.trust,
            asked.proxy_sha256[:12],
        )
    if waiting:
        Console().print(table, markup=False, highlight=False)
    else:
        typer.echo("no question waits")


@app.command()
def approve(run: _Run, config: _Config) -> None:
    """Let a run have what it asked so far, as far as the policy's other clauses do.

    RUN is the run's number, as `fedistill site pending` prints it.
    """
    from fedistill.site.approvals import Decision

    _decide(config, run, Decision.APPROVED)


@app.command()
def deny(run: _Run, config: _Config) -> None:
    """Refuse what a run asked so far; the server sees that the policy forbids it.

    RUN is the run's number, as `fedistill site pending` prints it.
    """
    from fedistill.site.approvals import Decision

    _decide(config, run, Decision.DENIED)


def _decide(config: Path, run: str, decision: "Decision") -> None:
    for entry in _queue(_load(config)).decide(run, decision):
        asked = entry.question
        typer.echo(f"{decision}: run {run}, {asked.mechanism} at epsilon {asked.epsilon:g}")


def _load(path: Path) -> "SiteConfig":
    from fedistill.site.site_config import SiteConfig

    return SiteConfig.load(path)


def _expires(site: "SiteConfig") -> datetime | None:
    """When the registration or the certificate ends, of a site with a kit beside its key.

    Raises:
        ProvisionError: The kit is for another site than the policy, or cannot be read.
    """
    from fedistill.provision.site_folder import SiteFolder
    from fedistill.provision.standing import membership_ends
    from fedistill.site import Policy

    folder = SiteFolder(site.key_path.parent)
    if not folder.membership.exists():
        return None
    return membership_ends(folder, Policy.load(site.policy_path).site)


def _queue(site: "SiteConfig") -> "Approvals":
    from fedistill.site.approvals import Approvals

    return Approvals(site.approvals_path)


def _waiting(queue: "Approvals") -> list[str]:
    from fedistill.site.approvals import Decision

    return sorted({each.run for each in queue.entries() if each.decision is Decision.WAITING})


def _in_rows(found: "Standing") -> list[tuple[str, str]]:
    rows = [
        ("site", found.site),
        ("population", found.population),
        ("budget", f"epsilon {found.budget_epsilon:g} at delta {found.delta:g}"),
        ("spent", f"{found.spent_epsilon:.4g} in {found.charges} charges"),
        ("left", f"{found.left_epsilon:.4g}"),
        ("waiting", ", ".join(found.waiting) or "no question"),
    ]
    if found.certificate_days is not None:
        rows.append(("certificate", f"{found.certificate_days:.0f} days"))
    if not found.running:
        return [*rows, ("agent", "does not run")]
    return [
        *rows,
        ("agent", found.busy or "idle"),
        ("up", f"{found.uptime_seconds / 3600:.1f} hours"),
        ("open rounds", ", ".join(found.open_rounds) or "none"),
        ("finished rounds", f"{found.finished_rounds}"),
        ("answers", f"{found.answers}, {found.refusals} refused"),
        ("last answer", found.last_answer or "none"),
    ]


def _print(rows: list[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False, highlight=False)
