"""The courier of a deployed site: a Flower ClientApp that forwards to the site's agent.

It runs beside flower-supernode, as a user who can read neither rows nor ledger nor keys. All it
ever holds are questions, and what the agent encoded for the wire: noised or masked integers, or a
public class. It imports Flower and gRPC alone, since it starts anew for every message.
"""

import json
import time
from collections.abc import Callable

import grpc
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedistill.federation import records
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import WAITING, Request, SiteClient

SOCKET = "site-socket"
"""Key of the SuperNode's --node-config that names the agent's socket."""

NO_ANSWER = "no-answer"

_SECONDS_BETWEEN_QUESTIONS = 2.0
_SHARE_OF_PHASE = 0.9

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Name the site, and its public key; a site whose agent is down hosts nobody."""
    identities = {}
    try:
        with _client(context) as client:
            site, identity = client.hello()
            identities[site] = identity
    except (KeyError, grpc.RpcError):
        identities = {}
    return Message(records.hello_record(identities), reply_to=message)


@app.train("labels")
def labels(message: Message, context: Context) -> Message:
    """Noised labels on the proxy set, outside a sum."""

    def request(site: str, run: str) -> Request:
        return _question(message.content, site, run)

    return _released("Labels", message, context, request)


@app.train("keys")
def keys(message: Message, context: Context) -> Message:
    """The round is opened: fresh signed keys."""

    def request(site: str, run: str) -> Request:
        asked = message.content.config_records["round"]
        return agent_pb2.Invitation(
            question=_question(message.content, site, run),
            terms=str(asked["terms"]),
            stated=_texts(asked["stated"]),
        )

    return _sealed("Keys", message, context, request)


@app.train("shares")
def shares(message: Message, context: Context) -> Message:
    """Encrypted shares for the peers."""
    return _step("Shares", message, context)


@app.train("sealed")
def sealed(message: Message, context: Context) -> Message:
    """Noised labels, masked."""
    return _step("Sealed", message, context)


@app.train("agree")
def agree(message: Message, context: Context) -> Message:
    """A signature of who survived."""
    return _step("Agree", message, context)


@app.train("unmask")
def unmask(message: Message, context: Context) -> Message:
    """The shares that open the sum."""
    return _step("Unmask", message, context)


@app.evaluate("student")
def student(message: Message, context: Context) -> Message:
    """Noised tables of how a student does on rows that the site held out, outside a sum."""

    def request(site: str, run: str) -> Request:
        sent = message.content.config_records["student"]["file"]
        if not isinstance(sent, bytes):
            raise TypeError("student must be bytes")
        return agent_pb2.Scoring(question=_question(message.content, site, run), student=sent)

    return _released("Evaluate", message, context, request)


def _released(
    method: str, message: Message, context: Context, request: Callable[[str, str], Request]
) -> Message:
    site, status, answer = _forward(method, message, context, request)
    if status == records.OK:
        return Message(records.release_record(site, answer), reply_to=message)
    return Message(records.failure_record(site, status), reply_to=message)


def _step(method: str, message: Message, context: Context) -> Message:
    def request(site: str, run: str) -> Request:
        parts = message.content.config_records["step"]["parts"]
        if not isinstance(parts, list):
            raise TypeError("parts must be a list")
        return agent_pb2.Step(site=site, run=run, parts=[bytes(part) for part in parts])  # type: ignore[arg-type]

    return _sealed(method, message, context, request)


def _sealed(
    method: str, message: Message, context: Context, request: Callable[[str, str], Request]
) -> Message:
    site, status, answer = _forward(method, message, context, request)
    if status == records.OK:
        return Message(records.sealed_record(site, answer), reply_to=message)
    return Message(records.refusal_record(site, status), reply_to=message)


def _forward(
    method: str, message: Message, context: Context, request: Callable[[str, str], Request]
) -> tuple[str, str, bytes]:
    """Whom was asked, and status and message of the agent's answer.

    A question that waits for the site's owner is asked again for most of `phase-timeout`.
    """
    site = _named(message.content)
    deadline = time.monotonic() + _patience(context)
    try:
        asked = request(site, str(context.run_id))
        with _client(context) as client:
            status, answer = client.ask(method, asked)
            while status == WAITING and time.monotonic() < deadline:
                time.sleep(_SECONDS_BETWEEN_QUESTIONS)
                status, answer = client.ask(method, asked)
    except (KeyError, TypeError, ValueError, grpc.RpcError):
        # Malformed, or nobody listens: the server learns no more than that there is no answer.
        return site, NO_ANSWER, b""
    return site, status, answer


def _question(content: RecordDict, site: str, run: str) -> agent_pb2.Question:
    fields = dict(content.config_records["question"])
    fields.pop("site")
    return agent_pb2.Question(site=site, run=run, question=json.dumps(fields))


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError("stated must be a list")
    return [str(text) for text in value]


def _named(content: RecordDict) -> str:
    """The site that the message is for; the agent answers for its own alone."""
    for name in ("question", "step"):
        if name in content.config_records:
            return str(content.config_records[name].get("site"))
    return "unknown"


def _patience(context: Context) -> float:
    value = context.run_config.get("phase-timeout")
    return _SHARE_OF_PHASE * value if isinstance(value, float) else 0.0


def _client(context: Context) -> SiteClient:
    return SiteClient(str(context.node_config[SOCKET]))
