"""Asking sites over Flower's Grid, and what becomes of those that stay away."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedistill.errors import TooFewSites
from fedistill.federation import messages
from fedistill.federation.messages import Answer
from fedistill.labels import LabelQuestion

_POLL_SECONDS = 0.2

OnProgress = Callable[[int, int], None]


@dataclass
class Wire:
    """Bytes of message contents that crossed the wire, by site."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Roster:
    """Which node hosts which site."""

    nodes: Mapping[str, int]


def find_sites(
    grid: Grid, sites: Sequence[str], *, timeout: float, wire: Wire, on_progress: OnProgress
) -> Roster:
    """Ask nodes which sites they host, until all are found or `timeout` seconds have passed."""
    wanted = set(sites)
    asked: set[int] = set()
    pending: list[str] = []
    nodes: dict[str, int] = {}
    deadline = time.monotonic() + timeout
    while wanted - set(nodes) and time.monotonic() < deadline:
        new = set(grid.get_node_ids()) - asked
        asked |= new
        pending += _push(grid, [_message(RecordDict(), messages.HELLO, node) for node in new])
        for reply in grid.pull_messages(pending):
            pending.remove(reply.metadata.reply_to_message_id)
            if reply.has_error():
                continue
            for site in messages.read_hello(reply.content):
                if site in wanted:
                    nodes.setdefault(site, reply.metadata.src_node_id)
                    wire.up[site] = messages.wire_bytes(reply.content)
                    wire.down[site] = messages.wire_bytes(RecordDict())
        on_progress(len(nodes), len(wanted))
        if wanted - set(nodes):
            time.sleep(_POLL_SECONDS)
    return Roster({site: nodes[site] for site in sites if site in nodes})


def ask_sites(
    grid: Grid,
    roster: Roster,
    action: str,
    questions: Mapping[str, LabelQuestion],
    *,
    timeout: float,
    up: dict[str, int],
    down: dict[str, int],
    on_progress: OnProgress,
) -> dict[str, Answer]:
    """Put its question to every site of the roster; silence is an answer of status "no-answer"."""
    answers = {site: Answer(site=site, status="no-answer", release=b"") for site in roster.nodes}
    contents = {site: messages.question_to_record(site, questions[site]) for site in roster.nodes}
    ids = _push(
        grid, [_message(contents[site], action, node) for site, node in roster.nodes.items()]
    )
    site_of = dict(zip(ids, roster.nodes, strict=True))
    for site, content in contents.items():
        down[site] = down.get(site, 0) + messages.wire_bytes(content)
    pending = [message_id for message_id in ids if message_id]
    deadline = time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        for reply in grid.pull_messages(pending):
            message_id = reply.metadata.reply_to_message_id
            pending.remove(message_id)
            if reply.has_error():
                continue
            site = site_of[message_id]
            up[site] = up.get(site, 0) + messages.wire_bytes(reply.content)
            answer = messages.read_answer(reply.content)
            # Whoever answers for another site is not believed.
            named = answer.site == site or answer.status != messages.OK
            status = answer.status if named else "malformed"
            answers[site] = Answer(site=site, status=status, release=answer.release)
        on_progress(len(ids) - len(pending), len(ids))
        if pending:
            time.sleep(_POLL_SECONDS)
    return answers


def require_sites(answered: int, asked: int, min_sites: int, reasons: Iterable[str]) -> None:
    """End the run when too few sites are left.

    Raises:
        TooFewSites: Says how many, the bound, and why the others are missing.
    """
    if answered < min_sites:
        raise TooFewSites(
            f"{answered} of {asked} sites answered, min-sites={min_sites}: {'; '.join(reasons)}"
        )


def _message(content: RecordDict, action: str, node: int) -> Message:
    return Message(content, message_type=action, dst_node_id=node)


def _push(grid: Grid, outgoing: list[Message]) -> list[str]:
    return list(grid.push_messages(outgoing)) if outgoing else []
