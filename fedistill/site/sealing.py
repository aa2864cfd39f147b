"""A site's side of a sealed round: from a question to a vector that only the sum over sites opens.

    keys -> shares -> labels -> agree -> unmask

Every step checks before it costs: policy, terms and budget's plan at `keys`, the peers' signatures
at `shares`, who still takes part at `labels`, and only then the charge. `secagg` has the protocol.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from fedistill import secagg
from fedistill.errors import PolicyRefusal
from fedistill.labels import LabelQuestion
from fedistill.privacy.grid import LABEL_SCALE
from fedistill.secagg import (
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
from fedistill.summands import Integers, Layout, Place, to_summands


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
    agent.plan(question)
    agent.policy.check_round(terms)
    layout = _layout(agent, question, stated)
    _check("length", terms.length, layout.length)
    _check("grid", terms.grid, LABEL_SCALE)
    _check("proxy_sha256", terms.proxy_sha256, question.proxy_sha256)
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
    agent: LocalAgent, this: SealedRound, delivery: ShareDelivery
) -> tuple[SealedRound, MaskedVector]:
    """This site's noised labels under its masks: charged before they exist, or given again.

    Raises:
        SecAggError: See `secagg.mask`; then nothing was charged.
        Refusal: See `LocalAgent.labels`.
    """
    secagg.check_delivery(this.state, delivery)
    state, masked = secagg.mask(this.state, delivery, _integers(agent, this))
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


def _integers(agent: LocalAgent, this: SealedRound) -> Integers:
    release = agent.labels(this.question, sealed=True)
    layout = _layout(agent, this.question, this.stated)
    return to_summands(release, layout, this.state.terms.bound)


def _layout(agent: LocalAgent, question: LabelQuestion, stated: tuple[Place, ...]) -> Layout:
    return Layout(num_rows=len(agent.proxy.rows), num_classes=question.num_classes, stated=stated)


def _check(field: str, value: object, needed: object) -> None:
    if value != needed:
        raise PolicyRefusal(
            f"{field}={value} of the round must be {needed}, as the question has it"
        )
