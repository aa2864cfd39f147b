"""A site's side of a sealed round: from a question to a vector that only the sum over sites opens.

    keys -> shares -> labels -> agree -> unmask

Every step checks before it costs: policy, terms and budget's plan at `keys`, the peers' signatures
at `shares`, who still takes part at `labels`, and only then the charge. `secagg` has the protocol.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np

from fedistill import secagg
from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import EVALUATION, Floats, LabelQuestion
from fedistill.mechanisms import is_summed
from fedistill.privacy.grid import LABEL_SCALE
from fedistill.secagg import (
    MODULUS,
    KeyAdvert,
    MaskedVector,
    Participation,
    RevealedShares,
    RoundTerms,
    ShareBundle,
    ShareDelivery,
    SiteState,
    SurvivorSignature,
)
from fedistill.site.agent import LocalAgent
from fedistill.site.evaluating import evaluated_integers, planned_evaluation
from fedistill.site.receipting import write_receipt
from fedistill.site.summing import Part, plan_sum, summed_integers
from fedistill.summands import Layout, Place, to_summands

SUMMED_GRID = 1.0
"""The step of integers whose meaning their mechanism knows."""


@dataclass(frozen=True, kw_only=True)
class SealedRound:
    """What a site remembers of a round between its steps: in memory, never on a disk.

    Attributes:
        question: What was asked at `keys`; it stays the question until the end.
        stated: Places after the codes in every site's vector.
        state: Keys and shares of the protocol.
    """

    question: LabelQuestion
    stated: tuple[Place, ...]
    state: SiteState

    def to_bytes(self) -> bytes:
        """For memory that outlives a call."""
        fields = {"question": asdict(self.question), "stated": self.stated}
        text = json.dumps(fields).encode()
        return len(text).to_bytes(4, "big") + text + self.state.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`."""
        size = int.from_bytes(data[:4], "big")
        fields = json.loads(data[4 : 4 + size])
        return cls(
            question=LabelQuestion(**fields["question"]),
            stated=tuple((mechanism, name) for mechanism, name in fields["stated"]),
            state=SiteState.from_bytes(data[4 + size :]),
        )


def keys(
    agent: LocalAgent, question: LabelQuestion, terms: RoundTerms, stated: tuple[Place, ...]
) -> tuple[SealedRound, KeyAdvert]:
    """Fresh signed keys for a round, if the policy allows it and what it asks.

    Raises:
        PolicyRefusal: A clause forbids the question or the round.
        TermsRefused: The roster does not name this site with its own key.
    """
    agent.policy.check_round(terms)
    agent.policy.check_peers(terms)
    _check("proxy_sha256", terms.proxy_sha256, question.proxy_sha256)
    _check("round", terms.round, question.round)
    _check("question", question, bound_to(terms, question))
    if is_summed(question) or question.mechanism == EVALUATION:
        planned = planned_evaluation if question.mechanism == EVALUATION else plan_sum
        plan = planned(agent, question, terms.num_sites)
        fitting = plan.length, plan.largest, SUMMED_GRID
        if question.trust != "none":
            _check("min_honest", terms.min_honest, question.min_honest_sites)
    else:
        agent.plan(question)
        layout = _layout(agent, question, stated)
        fitting = layout.length, bound_for(terms.num_sites), LABEL_SCALE
    _check("length, bound and grid", (terms.length, terms.bound, terms.grid), fitting)
    state, advert = secagg.advertise(terms, agent.policy.site, agent.identity)
    return SealedRound(question=question, stated=stated, state=state), advert


def shares(
    agent: LocalAgent, this: SealedRound, adverts: Sequence[KeyAdvert]
) -> tuple[SealedRound, ShareBundle]:
    """Encrypted shares for the peers, every one of whom this site's policy pins.

    Raises:
        SecAggError: See `secagg.share`.
    """
    state, bundle = secagg.share(this.state, adverts, agent.policy.pinned)
    return replace(this, state=state), bundle


def labels(
    agent: LocalAgent, this: SealedRound, delivery: ShareDelivery, sent: bytes = b""
) -> tuple[SealedRound, MaskedVector]:
    """This site's noised integers under its masks: charged before they exist, or given again.

    `sent` are the weights, or the student, that the question names by the hash, b"" without any.

    Raises:
        SecAggError: See `secagg.mask`; then nothing was charged.
        Refusal: See `LocalAgent.labels`.
    """
    secagg.check_delivery(this.state, delivery)
    part = _part(agent, this, sent)
    state, masked = secagg.mask(this.state, delivery, part.integers)
    write_receipt(
        agent,
        this.question,
        masked.to_bytes(),
        epsilon=part.epsilon,
        cached=part.cached,
        sealed=True,
    )
    return replace(this, state=state), masked


def agree(
    this: SealedRound, participations: Sequence[Participation]
) -> tuple[SealedRound, SurvivorSignature]:
    """This site's signature of who survived.

    Raises:
        SecAggError: See `secagg.agree`.
    """
    state, signature = secagg.agree(this.state, participations)
    return replace(this, state=state), signature


def unmask(
    this: SealedRound, signatures: Sequence[SurvivorSignature]
) -> tuple[SealedRound, RevealedShares]:
    """The shares that open the sum, once enough sites signed the same survivors.

    Raises:
        SecAggError: See `secagg.reveal`.
    """
    state, revealed = secagg.reveal(this.state, signatures)
    return replace(this, state=state), revealed


def bound_to(terms: RoundTerms, question: LabelQuestion) -> LabelQuestion:
    """The question as this round must ask it.

    An answer with shared noise is of one round and cohort alone and is never given again: two sums
    over unlike cohorts would show a site with one share of noise (PRIVACY rule 13).
    """
    if question.trust == "none":
        return replace(question, run="", cohort_sha256="")
    cohort = json.dumps([[site, key.hex()] for site, key in terms.identities])
    return replace(
        question, run=terms.run, cohort_sha256=hashlib.sha256(cohort.encode()).hexdigest()
    )


def weights_to_bytes(weights: Floats | None) -> bytes:
    """Weights as they are sent; b"" for none."""
    return b"" if weights is None else weights.astype("<f8").tobytes()


def weights_sha256(weights: Floats | None) -> str:
    """Hash by which a question names its weights; "" for none."""
    return "" if weights is None else hashlib.sha256(weights_to_bytes(weights)).hexdigest()


def bound_for(num_sites: int) -> int:
    """What each of so many sites may send at most, so that their sum does not wrap around."""
    return (MODULUS // 2 - 1) // num_sites


def _sent_weights(agent: LocalAgent, question: LabelQuestion, sent: bytes) -> Floats:
    """The weights (num_features, num_classes) that came with the question; zeros for none."""
    shape = (proxy_basis(agent.proxy).map.num_features, question.num_classes)
    if not sent and not question.broadcast_sha256:
        return np.zeros(shape)
    weights = np.frombuffer(sent, "<f8") if len(sent) == 8 * shape[0] * shape[1] else np.zeros(0)
    if weights_sha256(weights) != question.broadcast_sha256 or not np.isfinite(weights).all():
        raise PolicyRefusal(
            f"broadcast_sha256={question.broadcast_sha256[:12]!r} must be of the weights that were "
            f"sent, {shape} finite numbers"
        )
    return weights.reshape(shape).astype(np.float64)


def _part(agent: LocalAgent, this: SealedRound, sent: bytes) -> Part:
    terms = this.state.terms
    if this.question.mechanism == EVALUATION:
        return evaluated_integers(agent, this.question, terms.num_sites, sent)
    weights = _sent_weights(agent, this.question, sent)
    if is_summed(this.question):
        return summed_integers(agent, this.question, terms.num_sites, weights)
    answer = agent.answer(this.question)
    integers = to_summands(answer.release, _layout(agent, this.question, this.stated), terms.bound)
    return Part(integers=integers, epsilon=answer.epsilon, cached=answer.cached)


def _layout(agent: LocalAgent, question: LabelQuestion, stated: tuple[Place, ...]) -> Layout:
    return Layout(num_rows=len(agent.proxy.rows), num_classes=question.num_classes, stated=stated)


def _check(field: str, value: object, needed: object) -> None:
    if value != needed:
        raise PolicyRefusal(
            f"{field}={value} of the round must be {needed}, as the question has it"
        )
