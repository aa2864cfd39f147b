"""What a site answers on its courier's socket. Whatever fails crosses it as a public class only.

Questions are answered one after the other, on one thread, which alone uses the ledger. Keys and
shares of open rounds are in this process's memory and nowhere else: an agent that was restarted
has no round open, and the server's next round begins with fresh keys (PRIVACY rule 15).
"""

import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from fedistill.codec import encode_evaluation, encode_release
from fedistill.errors import DataError, FedistillError, MessageRefused, Waiting
from fedistill.labels import LabelQuestion
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
from fedistill.site.sealing import SealedRound
from fedistill.site_api import agent_pb2, agent_pb2_grpc
from fedistill.summands import Place

OK = "ok"
MOST_ROUNDS = 8
"""Open rounds that are kept; the oldest goes first."""

_RUN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,63}")

Sealed = KeyAdvert | ShareBundle | MaskedVector | SurvivorSignature | RevealedShares
Step = Callable[[SealedRound, list[bytes]], tuple[SealedRound, Sealed]]

log = logging.getLogger("fedistill.site")


class SiteService(agent_pb2_grpc.SiteAgentServicer):  # type: ignore[misc]
    """The courier's methods, over one agent.

    Args:
        agent: Reads the private rows; used on the thread of `worker` alone.
        worker: An executor of one thread.
    """

    def __init__(self, agent: LocalAgent, worker: ThreadPoolExecutor) -> None:
        self._agent = agent
        self._worker = worker
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
        return agent_pb2.HelloReply(site=self._site, identity=self._identity)

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

        def in_turn() -> bytes:
            if site != self._site or not _RUN.fullmatch(run):
                raise DataError(f"site={site!r}, run={run!r} must be this site and a run's name")
            self.busy, self._agent.run = f"{name} of run {run}", run
            try:
                return answer()
            finally:
                self.busy = ""

        try:
            message = self._worker.submit(in_turn).result()
        except Waiting as error:
            return agent_pb2.Answer(status=error.public_class)  # asked again every few seconds
        except FedistillError as error:
            log.warning("%s of run %.64r: %s: %s", name, run, type(error).__name__, error)
            return agent_pb2.Answer(status=error.public_class)
        except Exception:
            log.exception("%s of run %.64r", name, run)
            return agent_pb2.Answer(status=FedistillError.public_class)
        log.info("%s of run %s: answered, %s bytes", name, run, f"{len(message):,}")
        return agent_pb2.Answer(status=OK, message=message)


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
