"""`fedistill site start` and what its owner does beside it: status, ledger and approvals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedistill.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from fedistill.site.approvals import Approvals, Decision
    from fedistill.site.site_config import SiteConfig

app = typer.Typer()  # nameless: its commands are `fedistill site ...`

_Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The agent's file, such as agent.toml.")
]
# Newer versions of Click drop an argument's help: the docstrings say what it is.
_Run = Annotated[str, typer.Argument(metavar="RUN", hidden=True)]

_PATIENCE = 3.0  # seconds


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


@app.command()
def start(config: _Config) -> None:
    """Answer questions until SIGTERM, which lets a question under way finish.

    Reads the private rows once. Whatever is asked, the site's policy is asked first. Peers are the
    sites that fedistill site pin pinned beside the key, and those in the policy's [peers]. Log
    lines go to stderr, with levels for journald where it listens; they may quote private values.
    """
    from fedistill.provision.peers import peers_of
    from fedistill.provision.site_folder import SiteFolder
    from fedistill.site import Policy
    from fedistill.site.daemon import run_agent
    from fedistill.site.daemon_log import log_to_stderr

    log_to_stderr()
    site = _load(config)
    folder = SiteFolder(site.key_path.parent)
    run_agent(site, peers_of(folder, Policy.load(site.policy_path)))


@app.command()
def status(config: _Config) -> None:
    """Print what the agent does and what is left of the budget. Exit code 1: it does not run."""
    import grpc

    from fedistill.privacy import ledger_file
    from fedistill.privacy.ledger_budget import Balance
    from fedistill.site import Policy
    from fedistill.site_api.client import SiteClient

    site = _load(config)
    policy = Policy.load(site.policy_path)
    balance = Balance.of(
        ledger_file.read(site.ledger_path),
        budget_epsilon=policy.total_epsilon,
        delta=policy.delta,
    )
    rows = [
        ("site", policy.site),
        ("population", policy.population),
        ("budget", f"epsilon {policy.total_epsilon:g} at delta {policy.delta:g}"),
        ("spent", f"{balance.spent_epsilon:.4g} in {balance.charges} charges"),
        ("left", f"{balance.remaining_epsilon:.4g}"),
        ("waiting", ", ".join(_waiting(_queue(site))) or "no question"),
    ]
    try:
        with SiteClient(site.owner_socket_path, patience=_PATIENCE) as client:
            reply = client.status()
    except grpc.RpcError:
        _print([*rows, ("agent", "does not run")])
        raise RunFailed(
            f"nobody answers on {site.owner_socket_path}: fedistill site start --config {config}"
        ) from None
    rows += [
        ("agent", reply.busy or "idle"),
        ("open rounds", ", ".join(reply.rounds) or "none"),
    ]
    _print(rows)


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


def _queue(site: "SiteConfig") -> "Approvals":
    from fedistill.site.approvals import Approvals

    return Approvals(site.approvals_path)


def _waiting(queue: "Approvals") -> list[str]:
    from fedistill.site.approvals import Decision

    return sorted({each.run for each in queue.entries() if each.decision is Decision.WAITING})


def _print(rows: list[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False, highlight=False)
