"""Asking sites over Flower's Grid, and what becomes of those that stay away."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedistill.errors import TooFewSites
from fedistill.federation import messages
from fedistill.federation.messages import Answer
from fedistill.labels import LabelQuestion

_POLL_SECONDS = 0.1

OnProgress = Callable[[int, int], None]


@dataclass
class Wire:
    """Bytes of message contents that crossed the wire, by site."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Roster:
    """Which node hosts which site, the raw Ed25519 public key by which each site signs, and the
    signed end of its ledger.
    """

    nodes: Mapping[str, int]
    identities: Mapping[str, bytes] = field(default_factory=dict)
    anchors: Mapping[str, bytes] = field(default_factory=dict)

    def only(self, sites: Iterable[str]) -> "Roster":
        """The same without other sites, in the order of this one."""
        kept = set(sites)
        return Roster(
            {site: node for site, node in self.nodes.items() if site in kept},
            self.identities,
            self.anchors,
        )


def find_sites(
    grid: Grid, sites: Sequence[str], *, timeout: float, wire: Wire, on_progress: OnProgress
) -> Roster:
    """Ask nodes which sites they host, until all are found or `timeout` seconds have passed."""
    wanted = set(sites)
    asked: set[int] = set()
    pending: list[str] = []
    nodes: dict[str, int] = {}
    identities: dict[str, bytes] = {}
    anchors: dict[str, bytes] = {}
    deadline = time.monotonic() + timeout
    while wanted - set(nodes) and time.monotonic() < deadline:
        new = set(grid.get_node_ids()) - asked
        asked |= new
        pending += _push(grid, [_message(RecordDict(), messages.HELLO, node) for node in new])
        for reply in grid.pull_messages(pending):
            pending.remove(reply.metadata.reply_to_message_id)
            if reply.has_error():
                continue
            for site, identity in messages.read_hello(reply.content).items():
                if site in wanted and site not in nodes:
                    nodes[site] = reply.metadata.src_node_id
                    identities[site] = identity
                    anchors[site] = messages.read_anchors(reply.content).get(site, b"")
                    wire.up[site] = messages.wire_bytes(reply.content)
                    wire.down[site] = messages.wire_bytes(RecordDict())
        on_progress(len(nodes), len(wanted))
        if wanted - set(nodes):
            time.sleep(_POLL_SECONDS)
    return Roster({site: nodes[site] for site in sites if site in nodes}, identities, anchors)


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
    replies = exchange(
        grid,
        roster,
        action,
        {site: messages.question_to_record(site, questions[site]) for site in roster.nodes},
        timeout=timeout,
        up=up,
        down=down,
        on_progress=on_progress,
    )
    return {site: _answer_of(site, replies.get(site)) for site in roster.nodes}


def exchange(
    grid: Grid,
    roster: Roster,
    action: str,
    contents: Mapping[str, RecordDict],
    *,
    timeout: float,
    up: dict[str, int],
    down: dict[str, int],
    on_progress: OnProgress,
    in_turn: bool = False,
) -> dict[str, RecordDict]:
    """Send every site its content and wait for the replies; who stays silent has none.

    Args:
        grid: Carries the messages.
        roster: Where the sites are.
        action: The messages' type.
        contents: What each site is sent.
        timeout: Seconds to wait for all of them.
        up: Grows by the bytes of each reply.
        down: Grows by the bytes of each content.
        on_progress: Told how many sites have replied.
        in_turn: Whether a node gets its sites' messages one after the other. A node's memory from
            one message to the next is one record, which messages at the same time would overwrite.
    """
    waiting = [deque(sites) for sites in _by_node(roster, contents, in_turn=in_turn)]
    pending: dict[str, tuple[str, deque[str]]] = {}
    replies: dict[str, RecordDict] = {}
    seen, deadline = 0, time.monotonic() + timeout

    def send_next(queues: Iterable[deque[str]]) -> None:
        sent = [(queue.popleft(), queue) for queue in queues if queue]
        outgoing = [_message(contents[site], action, roster.nodes[site]) for site, _ in sent]
        for message_id, (site, queue) in zip(_push(grid, outgoing), sent, strict=True):
            down[site] = down.get(site, 0) + messages.wire_bytes(contents[site])
            if message_id:
                pending[message_id] = site, queue

    send_next(waiting)
    while pending and time.monotonic() < deadline:
        replied = []
        for reply in grid.pull_messages(list(pending)):
            site, queue = pending.pop(reply.metadata.reply_to_message_id)
            replied.append(queue)
            if not reply.has_error():
                up[site] = up.get(site, 0) + messages.wire_bytes(reply.content)
                replies[site] = reply.content
        seen += len(replied)
        send_next(replied)
        on_progress(seen, len(contents))
        if pending and not replied:
            time.sleep(_POLL_SECONDS)
    return replies


def _by_node(
    roster: Roster, contents: Mapping[str, RecordDict], *, in_turn: bool
) -> Iterable[list[str]]:
    """Sites whose messages must wait for each other: those of a node, or none."""
    if not in_turn:
        return [[site] for site in contents]
    queues: dict[int, list[str]] = {}
    for site in contents:
        queues.setdefault(roster.nodes[site], []).append(site)
    return queues.values()


def _answer_of(site: str, content: RecordDict | None) -> Answer:
    if content is None:
        return Answer(site=site, status="no-answer", release=b"")
    answer = messages.read_answer(content)
    # Whoever answers for another site is not believed.
    named = answer.site == site or answer.status != messages.OK
    status = answer.status if named else "malformed"
    return replace(answer, site=site, status=status)


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
