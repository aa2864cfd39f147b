"""`fedistill ledger`: what a site has spent, and proof that nobody edited it."""

import json
import math
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedistill.cli.ledger_files import LedgerFile, find_ledgers
from fedistill.errors import DataError, LedgerError
from fedistill.privacy import ledger_file
from fedistill.privacy.charge import Charge
from fedistill.privacy.ledger_budget import Balance
from fedistill.privacy.ledger_contents import Contents
from fedistill.privacy.ledger_verify import Verification
from fedistill.privacy.ledger_verify import verify as verify_ledger
from fedistill.privacy.receipts_verify import ReceiptCheck, verify_receipts

app = typer.Typer(
    name="ledger",
    help="Read a site's privacy ledger: what was spent, on what, and whether anyone edited it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


# Newer versions of Click drop an argument's help: the docstrings say what PATH is.
_Path = Annotated[Path | None, typer.Argument(metavar="[PATH]", hidden=True)]
_Ledger = Annotated[
    Path | None, typer.Option("--ledger", metavar="PATH", help="A site's ledger, as PATH is.")
]
_Run = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="All ledgers of a run: a folder, or its name in $FEDISTILL_HOME/runs."
        " Default: the last run's.",
    ),
]
_Format = Annotated[Format, typer.Option("--format", help="How to print.")]


@app.command()
def show(
    path: _Path = None, ledger: _Ledger = None, run: _Run = None, form: _Format = Format.TABLE
) -> None:
    """Print what was spent, and on what.

    PATH is a site's ledger, such as RUN/bank_a.ledger.db.

    EPSILON is the cost of the release alone. SPENT is the cost of it and all before it together,
    which is less than the sum: releases compose in Renyi divergence, not in epsilon. A charge
    without a stored answer is budget that a crash wasted; it is never refunded.
    """
    found = _find(path, ledger, run)
    if form is Format.JSON:
        _print_json([_charges_json(file) for file in found])
        return
    for file in found:
        Console().print(_charges_table(_read(file)), markup=False, highlight=False)
        typer.echo(f"Not checked here: fedistill ledger verify {file.path}")


@app.command()
def verify(
    path: _Path = None,
    ledger: _Ledger = None,
    run: _Run = None,
    anchor: Annotated[
        Path | None,
        typer.Option(help="A copy of the anchor that was kept elsewhere, instead of PATH.anchor."),
    ] = None,
    receipts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The site's receipts. Default: the run's, or receipts.jsonl beside PATH.",
        ),
    ] = None,
    server_key: Annotated[
        str,
        typer.Option(metavar="HEX", help="The server's public key. Default: as it is pinned."),
    ] = "",
    server_copy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the server kept of this site: countersigned/SITE.jsonl."
        ),
    ] = None,
    form: _Format = Format.TABLE,
) -> None:
    """Check that no charge and no receipt was edited, removed or reordered.

    PATH is a site's ledger, such as RUN/bank_a.ledger.db.

    Recomputes the hash chain, checks the site's signature of every entry, compares the chain with
    the anchor file beside the ledger (PATH.anchor), and checks the stored answers. Names the first
    entry that is wrong. Exit code 0: valid; 1: not valid; 2: there is no ledger at PATH.

    Without the anchor the finding is "prefix valid, completeness unknown": a chain that was cut
    short is still a chain. Whoever rewinds ledger and anchor together is only seen against a copy
    of the anchor that was kept elsewhere: --anchor.

    Receipts are checked with it: the site's signature of each, their chain, the ledger's head that
    each names, and the server's signature of those that it countersigned. Ledger, anchor and
    receipts rewound together are seen against what the server kept: --server-copy.
    """
    found = _find(path, ledger, run)
    if anchor is not None and len(found) > 1:
        raise DataError(f"--anchor={anchor} is of one ledger, not of {len(found)}: give its PATH")
    if anchor is not None and not anchor.is_file():
        raise DataError(f"--anchor={anchor} is no file: give a copy of an .anchor file")
    for option, copy in (("receipts", receipts), ("server-copy", server_copy)):
        if copy is not None and len(found) > 1:
            raise DataError(f"--{option}={copy} is of one ledger, not of {len(found)}: give PATH")
        if copy is not None and not copy.is_file():
            raise DataError(f"--{option}={copy} is no file: correct the path")
    results = [
        (
            file,
            verify_ledger(file.path, anchor_file=anchor),
            _check_receipts(file, receipts, server_key, server_copy),
        )
        for file in found
    ]
    if form is Format.JSON:
        _print_json(
            [
                _named(file) | asdict(result) | _receipts_json(check)
                for file, result, check in results
            ]
        )
    else:
        for file, result, check in results:
            typer.echo(f"{file.path}: {_counted(result.entries)}: {result.message}")
            if result.valid:
                typer.echo(f"{file.path}: {check.message}")
    if not all(result.valid and check.valid for _, result, check in results):
        raise typer.Exit(1)


def _check_receipts(
    file: LedgerFile, receipts: Path | None, server_key: str, server_copy: Path | None
) -> ReceiptCheck:
    policy = file.policy or file.path.with_name("policy.toml")
    if not server_key and policy.is_file():
        from fedistill.provision.peers import server_key_of
        from fedistill.provision.site_folder import SiteFolder
        from fedistill.site import Policy

        server_key = server_key_of(SiteFolder(policy.parent), Policy.load(policy))
    return verify_receipts(
        file.path,
        receipts or file.receipts or file.path.with_name("receipts.jsonl"),
        server_key=server_key,
        server_copy=server_copy,
    )


def _receipts_json(check: ReceiptCheck) -> dict[str, Any]:
    return {
        "receipts": {
            "valid": check.valid,
            "count": len(check.receipts),
            "countersigned": len(check.countersigned),
            "message": check.message,
        }
    }


@app.command()
def budget(
    path: _Path = None, ledger: _Ledger = None, run: _Run = None, form: _Format = Format.TABLE
) -> None:
    """Print what of the budget is spent, and what is left.

    PATH is a site's ledger, such as RUN/bank_a.ledger.db.

    Budget and delta are those of the site's policy: with --run the policy of that run, else the one
    that the last charge was made under. SPENT is everything charged so far, composed. LEFT is the
    budget less that. POOLED, where sites shared their noise, is what is spent if all others pool
    what they know. NEXT is the largest single question that still fits: more than LEFT, because
    releases compose in Renyi divergence. A ledger that is not valid is refused.
    """
    found = _find(path, ledger, run)
    balances = [(file, *_balance(file)) for file in found]
    if form is Format.JSON:
        _print_json(
            [
                _header_json(file, contents) | {"complete": check.complete} | asdict(balance)
                for file, contents, check, balance in balances
            ]
        )
        return
    pooled = any(each.alone_epsilon > each.spent_epsilon for *_, each in balances)
    columns = ("site", "charges", "budget", "spent", *["pooled"] * pooled, "left", "next", "delta")
    table = _table(*columns, left=1)
    for file, _, _, balance in balances:
        table.add_row(
            file.site,
            str(balance.charges),
            f"{balance.budget_epsilon:.4g}",
            f"{balance.spent_epsilon:.4g}",
            *[f"{balance.alone_epsilon:.4g}"] * pooled,
            _rounded_down(balance.remaining_epsilon),
            _rounded_down(balance.largest_question_epsilon),
            f"{balance.delta:g}",
        )
    Console().print(table, markup=False, highlight=False)
    for file, _, check, _ in balances:
        if not check.complete:
            typer.echo(f"{file.path}: {check.message}")


def _rounded_down(epsilon: float) -> str:
    # What is printed as left must fit when it is asked for.
    return f"{math.floor(epsilon * 1e4) / 1e4:g}"


def _find(path: Path | None, ledger: Path | None, run: str | None) -> tuple[LedgerFile, ...]:
    if path is not None and ledger is not None:
        raise DataError(f"PATH={path} and --ledger={ledger} are the same thing: give one of them")
    return find_ledgers(path or ledger, run)


def _read(file: LedgerFile) -> Contents:
    return ledger_file.read(file.path)


def _balance(file: LedgerFile) -> tuple[Contents, Verification, Balance]:
    check = verify_ledger(file.path)
    if not check.valid:
        raise LedgerError(f"ledger {file.path} is not valid, so nobody can add up: {check.message}")
    contents = _read(file)
    if file.policy is not None:
        from fedistill.site import Policy

        policy = Policy.load(file.policy)
        total, delta = policy.total_epsilon, policy.delta
    elif contents.charges:
        total, delta = contents.charges[-1].budget_epsilon, contents.charges[-1].delta
    else:
        raise LedgerError(
            f"ledger {file.path} has no charge that names its budget: see the site's policy"
        )
    return contents, check, Balance.of(contents, budget_epsilon=total, delta=delta)


def _table(*columns: str, left: int, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        justify = "left" if number < left else "right"
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _charges_table(contents: Contents) -> Table:
    header = contents.header
    table = _table(
        *("when (UTC)", "mechanism", "question", "epsilon", "spent", "budget", "delta"),
        left=3,
        title=f"population {header['population']}, {header['adjacency']} of one {header['unit']}",
    )
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
    return table


def _named(file: LedgerFile) -> dict[str, Any]:
    return {"path": str(file.path), "site": file.site}


def _header_json(file: LedgerFile, contents: Contents) -> dict[str, Any]:
    fields = ("population", "adjacency", "unit", "public_key")
    return _named(file) | {field: contents.header[field] for field in fields}


def _charges_json(file: LedgerFile) -> dict[str, Any]:
    contents = _read(file)
    charges = [_charge_json(charge) for charge in contents.charges]
    return _header_json(file, contents) | {"charges": charges}


def _charge_json(charge: Charge) -> dict[str, Any]:
    fields = asdict(charge)
    names = {"event_json": "event", "alone_json": "alone"}
    return {names.get(key, key): value for key, value in fields.items()}


def _print_json(ledgers: list[dict[str, Any]]) -> None:
    typer.echo(json.dumps({"ledgers": ledgers}, indent=2))


def _counted(entries: int) -> str:
    return f"{entries} charge" if entries == 1 else f"{entries} charges"
