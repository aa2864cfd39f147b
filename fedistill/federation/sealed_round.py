"""The server's side of a sealed round: five requests to every site, and one sum.

    keys -> shares -> labels -> agree -> unmask

A site that fails at any step is left out, and the sum is of those that remain. `secagg` decides
what a good reply is; here are the messages, the waiting and the checkpoint.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict

from fedistill import secagg
from fedistill.errors import TooFewSites, TooFewSurvivors
from fedistill.evaluate.files import write_atomically
from fedistill.federation import sealed_messages
from fedistill.federation.asking import Roster, exchange, require_sites
from fedistill.federation.countersigning import take_receipt
from fedistill.federation.messages import OK, read_statement, reason
from fedistill.federation.sealed_messages import Invitation
from fedistill.labels import Floats, LabelQuestion
from fedistill.secagg import RoundTerms, threshold_for
from fedistill.site.sealing import bound_to, weights_to_bytes
from fedistill.summands import Place

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run


@dataclass(frozen=True, kw_only=True)
class SealedSum:
    """All that the server learns of a round.

    Attributes:
        asked: Who was asked; what they add up to was scaled for so many.
        sites: Whose integers are in the sum.
        total: (length,) int64.
    """

    asked: tuple[str, ...]
    sites: tuple[str, ...]
    total: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """What the sites of a round are asked for.

    Attributes:
        questions: What each site is asked.
        length: Integers in a site's vector.
        bound: Every site's integers lie from -bound to bound.
        grid: The step of their grid.
        stated: Places after the codes in every vector.
        weights: Sent with the questions, or None.
        student: Sent in place of weights; b"" for none.
        phase: Name of the phase that the round is; "" makes each of its steps one.
    """

    questions: Mapping[str, LabelQuestion]
    length: int
    bound: int
    grid: float
    stated: tuple[Place, ...] = ()
    weights: Floats | None = None
    student: bytes = b""
    phase: str = ""


def sum_over_sites(
    this: "Run",
    roster: Roster,
    *,
    ask: Ask,
    round: int = 1,
) -> SealedSum:
    """Run one sealed round, or give what a finished one left.

    Args:
        this: The run.
        roster: Sites to invite.
        ask: What to ask them for.
        round: Its number in the run, from 1.

    Raises:
        TooFewSites: Too few remain to open a sum; nothing was learned.
    """
    if (stored := finished_round(this, round)) is not None:
        return stored
    terms = RoundTerms(
        # A round that is begun again has a name of its own, so that no message of the old one fits.
        run=f"{this.name}:{secrets.token_hex(8)}",
        round=round,
        identities=tuple(sorted((site, roster.identities[site]) for site in roster.nodes)),
        config_sha256=this.config.sha256(),
        proxy_sha256=this.public.proxy.sha256,
        length=ask.length,
        bound=ask.bound,
        grid=ask.grid,
        threshold=threshold_for(len(roster.nodes), this.config.colluding_sites),
        colluding=this.config.colluding_sites,
        min_honest=this.config.min_honest_sites,
    )
    warned = len(this.warnings)
    try:
        opened = _run_round(this, roster, terms, ask)
    except TooFewSurvivors as error:
        raise TooFewSites("; ".join([str(error), *this.warnings[warned:]])) from error
    _save(this, round, opened)
    return opened


def _run_round(this: "Run", roster: Roster, terms: RoundTerms, ask: Ask) -> SealedSum:
    invitations = {
        site: sealed_messages.invitation_to_record(
            Invitation(
                site=site,
                question=bound_to(terms, ask.questions[site]),
                terms=terms,
                stated=ask.stated,
            )
        )
        for site in roster.nodes
    }
    with this.phase(ask.phase or "keys"):
        replies = _ask(this, roster, ask.phase or "keys", sealed_messages.KEYS, invitations)
        state = secagg.collect_adverts(terms, replies)
    with this.phase(ask.phase or "shares"):
        adverts = [advert.to_bytes() for advert in state.adverts]
        replies = _ask_all(
            this, roster, ask.phase or "shares", sealed_messages.SHARES, replies, adverts
        )
        state, deliveries = secagg.collect_shares(state, replies)
    with this.phase(ask.phase or "labels"):
        handed = {
            site: sealed_messages.parts_to_record(
                site, [delivery.to_bytes(terms), ask.student or weights_to_bytes(ask.weights)]
            )
            for site, delivery in deliveries.items()
        }
        statements: dict[str, bytes] = {}
        replies = _ask(
            this, roster, ask.phase or "labels", sealed_messages.SEALED, handed, statements
        )
        state = secagg.collect_vectors(state, replies)
        for site in state.names(state.survivors):
            question = bound_to(terms, ask.questions[site])
            identity = roster.identities[site]
            take_receipt(this, site, question, identity, replies[site], statements[site])
    with this.phase(ask.phase or "unmask"):
        survivors = dict.fromkeys(state.names(state.survivors), b"")
        words = [word.to_bytes() for word in state.participations]
        replies = _ask_all(
            this, roster, ask.phase or "agree", sealed_messages.AGREE, survivors, words
        )
        state = secagg.collect_signatures(state, replies)
        signed = [signature.to_bytes() for signature in state.signatures]
        replies = _ask_all(
            this, roster, ask.phase or "unmask", sealed_messages.UNMASK, replies, signed
        )
        total = secagg.unmask(state, replies)
    sites = state.names(state.survivors)
    for site, why in state.refused:
        this.warn(f"{site} sent a message that was refused: {why}")
    require_sites(len(sites), len(roster.nodes), this.config.min_sites, this.warnings)
    return SealedSum(
        asked=tuple(roster.nodes),
        sites=tuple(site for site in roster.nodes if site in sites),
        total=total,
    )


def _ask_all(
    this: "Run",
    roster: Roster,
    phase: str,
    action: str,
    sites: Mapping[str, bytes],
    parts: list[bytes],
) -> dict[str, bytes]:
    """Hand the same parts to every one of `sites`."""
    contents = {site: sealed_messages.parts_to_record(site, parts) for site in sites}
    return _ask(this, roster, phase, action, contents)


def _ask(
    this: "Run",
    roster: Roster,
    phase: str,
    action: str,
    contents: Mapping[str, RecordDict],
    statements: dict[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The good replies by site; of the others the run is told why they are missing.

    `statements` grows by the statement of each good reply's receipt.
    """
    replies = exchange(
        this.grid,
        roster,
        action,
        contents,
        timeout=this.config.phase_timeout,
        up=this.wire.up,
        down=this.wire.down,
        on_progress=partial(this.progress.step, phase),
        in_turn=True,
    )
    good = {}
    for site in contents:
        status, message = "no-answer", b""
        if site in replies:
            status, message = sealed_messages.read_reply(replies[site])
        if status == OK:
            good[site] = message
            if statements is not None:
                statements[site] = read_statement(replies[site])
        else:
            this.warn(f"{site} {reason(status)} in phase {phase}: the round goes on without it")
    return good


def _save(this: "Run", round: int, opened: SealedSum) -> None:
    """Checkpoint of a finished round, in one file."""
    index = {
        "asked": opened.asked,
        "sites": opened.sites,
        "total": opened.total.tolist(),
        "wire": asdict(this.wire),
    }
    write_atomically(this.folder.checkpoint(f"round-{round}.json"), json.dumps(index))


def finished_round(this: "Run", round: int) -> SealedSum | None:
    """The sum of a round that an earlier try opened, None where there is none."""
    path = this.folder.checkpoint(f"round-{round}.json")
    if not path.is_file():
        return None
    index = json.loads(path.read_text())
    for direction, sizes in index["wire"].items():
        getattr(this.wire, direction).update(sizes)
    return SealedSum(
        asked=tuple(index["asked"]),
        sites=tuple(index["sites"]),
        total=np.array(index["total"], np.int64),
    )
