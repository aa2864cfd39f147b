"""What a site answers on its courier's socket. Whatever fails crosses it as a public class only.

Questions are answered one after the other, on one thread, which alone uses the ledger. Keys and
shares of open rounds are in this process's memory and nowhere else: an agent that was restarted
has no round open, and the server's next round begins with fresh keys (PRIVACY rule 15).
"""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from fedistill.codec import encode_evaluation, encode_release
from fedistill.errors import (
    DataError,
    FedistillError,
    LedgerError,
    MessageRefused,
    Waiting,
)
from fedistill.labels import LabelQuestion
from fedistill.privacy.ledger_anchor import anchor_to_bytes
from fedistill.secagg import (
    KeyAdvert,
    MaskedVector,
    Participation,
    RevealedShares,
    RoundTerms,
    ShareBundle,
    ShareDelivery,
    SurvivorSignature,
)
from fedistill.site import evaluating, sealing
from fedistill.site.agent import LocalAgent
from fedistill.site.receipting import keep_countersigned
from fedistill.site.sealing import SealedRound
from fedistill.site.watching import Watch
from fedistill.site_api import agent_pb2, agent_pb2_grpc
from fedistill.summands import Place

OK = "ok"
MOST_ROUNDS = 8
"""Open rounds that are kept; the oldest goes first."""

_RUN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,63}")

Sealed = KeyAdvert | ShareBundle | MaskedVector | SurvivorSignature | RevealedShares
Step = Callable[[SealedRound, list[bytes]], tuple[SealedRound, Sealed]]


class SiteService(agent_pb2_grpc.SiteAgentServicer):  # type: ignore[misc]
    """The courier's methods, over one agent.

    Args:
        agent: Reads the private rows; used on the thread of `worker` alone.
        worker: An executor of one thread.
        watch: Told of every answer and refusal.
    """

    def __init__(self, agent: LocalAgent, worker: ThreadPoolExecutor, watch: Watch) -> None:
        self._agent = agent
        self._worker = worker
        self._watch = watch
        self._site = agent.policy.site
        self._identity = agent.identity.public_key().public_bytes_raw()
        self._rounds: dict[str, SealedRound] = {}
        self.busy = ""

    @property
    def rounds(self) -> tuple[str, ...]:
        """Runs whose sealed round is open."""
        return tuple(self._rounds)

    def Hello(  # noqa: N802
        self, _request: agent_pb2.HelloRequest, _context: grpc.ServicerContext
    ) -> agent_pb2.HelloReply:
        """The site's public name and key; answered while a question is being answered."""
        # The agent opened its ledger when it started, so the anchor is up to date.
        anchor = anchor_to_bytes(self._agent.ledger_path)
        return agent_pb2.HelloReply(site=self._site, identity=self._identity, anchor=anchor)

    def Labels(  # noqa: N802
        self, request: agent_pb2.Question, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """Noised labels outside a sum."""

        def answer() -> bytes:
            return encode_release(self._agent.labels(_question(request)))

        return self._answer("labels", request.site, request.run, answer)

    def Keys(  # noqa: N802
        self, request: agent_pb2.Invitation, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """A round is opened, and replaces the run's last one: fresh signed keys."""
        run = request.question.run

        def answer() -> bytes:
            self._rounds.pop(run, None)
            this, advert = sealing.keys(
                self._agent,
                _question(request.question),
                RoundTerms.from_text(request.terms),
                tuple(_place(text) for text in request.stated),
            )
            while len(self._rounds) >= MOST_ROUNDS:
                self._rounds.pop(next(iter(self._rounds)))
            self._rounds[run] = this
            return _to_bytes(advert)

        return self._answer("keys", request.question.site, run, answer)

    def Shares(  # noqa: N802
        self, request: agent_pb2.Step, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """Encrypted shares for the peers."""

        def step(this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Sealed]:
            adverts = [KeyAdvert.from_bytes(part, this.state.terms) for part in parts]
            return sealing.shares(self._agent, this, adverts)

        return self._step("shares", request, step)

    def Sealed(  # noqa: N802
        self, request: agent_pb2.Step, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """Noised labels, masked."""

        def step(this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Sealed]:
            if len(parts) != 2:
                raise MessageRefused(f"parts={len(parts)} must be 2: a delivery and weights")
            delivery = ShareDelivery.from_bytes(parts[0], this.state.terms)
            return sealing.labels(self._agent, this, delivery, parts[1])

        return self._step("sealed", request, step)

    def Agree(  # noqa: N802
        self, request: agent_pb2.Step, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """A signature of who survived."""

        def step(this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Sealed]:
            words = [Participation.from_bytes(part, this.state.terms) for part in parts]
            return sealing.agree(this, words)

        return self._step("agree", request, step)

    def Unmask(  # noqa: N802
        self, request: agent_pb2.Step, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """The shares that open the sum; the round is over."""

        def step(this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Sealed]:
            signatures = [SurvivorSignature.from_bytes(part, this.state.terms) for part in parts]
            return sealing.unmask(this, signatures)

        return self._step("unmask", request, step, last=True)

    def Receipts(  # noqa: N802
        self, request: agent_pb2.Step, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """What the server countersigned, to be kept beside the receipts."""

        def answer() -> bytes:
            keep_countersigned(self._agent, list(request.parts))
            return b""

        return self._answer("receipts", request.site, request.run, answer)

    def Evaluate(  # noqa: N802
        self, request: agent_pb2.Scoring, _context: grpc.ServicerContext
    ) -> agent_pb2.Answer:
        """Noised tables of a student's scores outside a sum."""
        asked = request.question

        def answer() -> bytes:
            release = evaluating.evaluate(self._agent, _question(asked), request.student)
            return encode_evaluation(release)

        return self._answer("evaluate", asked.site, asked.run, answer)

    def _step(
        self, name: str, request: agent_pb2.Step, step: Step, *, last: bool = False
    ) -> agent_pb2.Answer:
        def answer() -> bytes:
            this = self._rounds.get(request.run)
            if this is None:
                raise MessageRefused(f"run {request.run} has no round open here: invite anew")
            new, message = step(this, list(request.parts))
            if last:
                del self._rounds[request.run]
            else:
                self._rounds[request.run] = new
            return _to_bytes(message)

        return self._answer(name, request.site, request.run, answer)

    def _answer(
        self, name: str, site: str, run: str, answer: Callable[[], bytes]
    ) -> agent_pb2.Answer:
        """What `answer` gives, in turn; everything that private code raises stops here."""
        started = time.monotonic()

        def in_turn() -> tuple[bytes, bytes]:
            nonlocal started
            started = time.monotonic()  # its own work, without the wait for its turn
            if site != self._site or not _RUN.fullmatch(run):
                raise DataError(f"site={site!r}, run={run!r} must be this site and a run's name")
            self.busy, self._agent.run = f"{name} of run {run}", run
            self._agent.statement = b""
            try:
                return answer(), self._agent.statement
            finally:
                self.busy = ""
                tell_spent(self._agent, self._watch)

        try:
            message, statement = self._worker.submit(in_turn).result()
        except Waiting as error:
            self._watch.waits(name, run)
            return agent_pb2.Answer(status=error.public_class)  # asked again every few seconds
        except Exception as error:
            self._watch.refused(name, run, error, seconds=time.monotonic() - started)
            kind = error if isinstance(error, FedistillError) else FedistillError
            return agent_pb2.Answer(status=kind.public_class)
        seconds = time.monotonic() - started
        self._watch.answered(name, run, seconds=seconds, num_bytes=len(message))
        return agent_pb2.Answer(status=OK, message=message, receipt=statement)


def tell_spent(agent: LocalAgent, watch: Watch) -> None:
    """Tell what is spent of the budget; on the thread that uses the ledger."""
    policy = agent.policy
    try:
        with agent.ledger() as ledger:
            left = ledger.remaining(policy.total_epsilon, policy.delta)
            watch.spent(ledger.spent(policy.delta), left=left)
    except LedgerError:
        return  # the question that needed it said so


def _to_bytes(message: Sealed) -> bytes:
    """The encoding of a message of the protocol; nothing else has one here."""
    if not isinstance(message, Sealed):
        raise TypeError(f"{type(message).__name__} is no message of a sealed round")
    return message.to_bytes()


def _question(request: agent_pb2.Question) -> LabelQuestion:
    try:
        values = json.loads(request.question)
    except ValueError as error:
        raise DataError(f"malformed question: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"malformed question: {type(values).__name__} must be an object")
    return LabelQuestion.from_fields(values)


def _place(text: str) -> Place:
    mechanism, _, name = text.partition(".")
    return mechanism, name
