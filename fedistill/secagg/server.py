"""The server's side of secure aggregation: collect five times, then open the sum.

    collect_adverts -> collect_shares -> collect_vectors -> collect_signatures -> unmask

Every step takes the replies by site, as bytes. A reply that is malformed, not signed as it must be,
of another round or in another site's name counts as none: that site has dropped out, and `refused`
says why. A step raises `TooFewSurvivors` when a sum can no longer be opened.

The server holds public values and masked vectors. That it computes honestly is nobody's
assumption but its own: the sites check what they must (`fedistill.secagg.site`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from fedistill.errors import MessageRefused, TooFewSurvivors
from fedistill.secagg.graph import Graph
from fedistill.secagg.keys import Signed, public_of
from fedistill.secagg.masks import Integers, Residues, add_mask, pair_key, self_key, to_integers
from fedistill.secagg.messages import (
    EncryptedShare,
    KeyAdvert,
    MaskedVector,
    Participation,
    RevealedShares,
    Secret,
    ShareBundle,
    ShareDelivery,
    SurvivorSignature,
)
from fedistill.secagg.sharing import combine_shares
from fedistill.secagg.terms import RoundTerms
from fedistill.secagg.transcript import (
    check_advert,
    check_enough,
    check_signed,
    commit,
    graph_for,
    participation_parts,
    survivor_parts,
    transcript_of,
    vector_sha256,
)

_Message = TypeVar(
    "_Message", KeyAdvert, ShareBundle, MaskedVector, SurvivorSignature, RevealedShares
)


@dataclass(frozen=True, kw_only=True)
class ServerRound:
    """A round as the server sees it.

    Attributes:
        terms: Of the round.
        adverts: Signed keys, to be handed to every site that sent some, in the roster's order.
        sharers: Places of the sites that sent shares.
        participations: Of the survivors, to be handed to each of them.
        residues: (length,) uint32, the sum of the survivors' masked vectors.
        signatures: Of the survivors, to be handed to each of them.
        refused: (site, why) of every reply that counted as none.
    """

    terms: RoundTerms
    adverts: tuple[KeyAdvert, ...] = ()
    sharers: tuple[int, ...] = ()
    participations: tuple[Participation, ...] = ()
    residues: Residues = field(default_factory=lambda: np.zeros(0, np.uint32))
    signatures: tuple[SurvivorSignature, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @cached_property
    def transcript(self) -> bytes:
        """Hash of the terms and of all signed keys."""
        return transcript_of(self.terms, self.adverts)

    @cached_property
    def graph(self) -> Graph:
        """Who masks with whom."""
        return graph_for(self.terms, self.adverts)

    @property
    def survivors(self) -> tuple[int, ...]:
        """Places of the sites whose vectors are in the sum."""
        return tuple(word.sender for word in self.participations)

    def names(self, sites: Sequence[int]) -> tuple[str, ...]:
        """Names of sites."""
        return tuple(self.terms.name_of(site) for site in sites)


def collect_adverts(terms: RoundTerms, replies: Mapping[str, bytes]) -> ServerRound:
    """The round, once sites sent their keys.

    Raises:
        TooFewSurvivors: Too few did.
    """

    def check(advert: KeyAdvert) -> None:
        check_advert(terms, advert)

    opening = ServerRound(terms=terms)
    adverts, refused = _read(opening, range(terms.num_sites), replies, KeyAdvert, check)
    check_enough(terms, adverts, "sent keys")
    return replace(opening, adverts=tuple(adverts.values()), refused=refused)


def collect_shares(
    state: ServerRound, replies: Mapping[str, bytes]
) -> tuple[ServerRound, dict[str, ShareDelivery]]:
    """The round, once sites sent their shares, and what each of them is handed.

    Raises:
        TooFewSurvivors: Too few did.
    """

    def check(bundle: ShareBundle) -> None:
        expected = state.graph.neighbours(bundle.sender)
        if tuple(one.peer for one in bundle.shares) != expected:
            raise MessageRefused(f"shares must be for {expected}, in order")

    senders = [advert.sender for advert in state.adverts]
    bundles, refused = _read(state, senders, replies, ShareBundle, check)
    check_enough(state.terms, bundles, "sent shares")
    sharers = tuple(bundles)
    # The same share, named by its receiver on the way up and by its sender on the way down.
    by_ends = {
        (sender, one.peer): EncryptedShare(peer=sender, ciphertext=one.ciphertext)
        for sender, bundle in bundles.items()
        for one in bundle.shares
    }
    deliveries = {
        state.terms.name_of(site): ShareDelivery(
            round_id=state.terms.round_id,
            receiver=site,
            sharers=sharers,
            shares=tuple(
                by_ends[peer, site] for peer in state.graph.neighbours(site) if peer in bundles
            ),
        )
        for site in sharers
    }
    return replace(state, sharers=sharers, refused=refused), deliveries


def collect_vectors(state: ServerRound, replies: Mapping[str, bytes]) -> ServerRound:
    """The round, once sites sent their masked vectors: who did is a survivor.

    Raises:
        TooFewSurvivors: Too few did.
    """

    def check(vector: MaskedVector) -> None:
        word, hashed = vector.participation, vector_sha256(vector.residues)
        if word.vector_sha256 != hashed:
            raise MessageRefused("the vector is not the one that its site vouches for")
        parts = participation_parts(state.terms, state.transcript, state.sharers, hashed)
        check_signed(state.terms, word, Signed.PARTICIPATION, parts)

    vectors, refused = _read(state, state.sharers, replies, MaskedVector, check)
    check_enough(state.terms, vectors, "survived")
    total = np.zeros(state.terms.length, np.uint32)
    for vector in vectors.values():
        total += vector.residues
    return replace(
        state,
        participations=tuple(vector.participation for vector in vectors.values()),
        residues=total,
        refused=refused,
    )


def collect_signatures(state: ServerRound, replies: Mapping[str, bytes]) -> ServerRound:
    """The round, once survivors signed who survived.

    Raises:
        TooFewSurvivors: Fewer than t did.
    """
    parts = survivor_parts(state.terms, state.transcript, state.sharers, state.survivors)

    def check(signature: SurvivorSignature) -> None:
        check_signed(state.terms, signature, Signed.SURVIVORS, parts)

    signatures, refused = _read(state, state.survivors, replies, SurvivorSignature, check)
    if len(signatures) < state.terms.threshold:
        raise TooFewSurvivors(
            f"too few sites: {len(signatures)} of {state.terms.num_sites} signed the survivors, "
            f"t = {state.terms.threshold} must; nothing was learned: ask again"
        )
    return replace(state, signatures=tuple(signatures.values()), refused=refused)


def unmask(state: ServerRound, replies: Mapping[str, bytes]) -> Integers:
    """The exact sum of the survivors' integers, (length,) int64 in [-2^31, 2^31).

    Args:
        state: After `collect_signatures`.
        replies: Revealed shares, of any t survivors or more; t_k peers of each in a sparse graph.

    Raises:
        TooFewSurvivors: A secret lacks shares, or too many of them are wrong.
    """

    def check(revealed: RevealedShares) -> None:
        if tuple(one.peer for one in revealed.shares) != state.graph.holders(revealed.sender):
            raise MessageRefused("shares must be those of the site and its peers, in order")

    revealed, _ = _read(state, state.survivors, replies, RevealedShares, check)
    total = state.residues.copy()
    survivors = set(state.survivors)
    for advert in state.adverts:
        if advert.sender in survivors:
            seed = _secret(state, advert, revealed, Secret.SEED)
            key = self_key(seed, state.transcript, advert.sender)
            add_mask(total, key, subtract=True)
        elif advert.sender in state.sharers:
            private = _secret(state, advert, revealed, Secret.MASK_KEY)
            _remove_pairs(state, total, advert.sender, private)
    return to_integers(total)


def _remove_pairs(state: ServerRound, total: Residues, dropped: int, private: bytes) -> None:
    """Take away the masks that survivors made with a site that then dropped out."""
    by_index = {advert.sender: advert for advert in state.adverts}
    survivors = set(state.survivors)
    for peer in state.graph.neighbours(dropped):
        if peer in survivors:
            key = pair_key(private, by_index[peer].mask_key, state.transcript, (peer, dropped))
            add_mask(total, key, subtract=peer < dropped)


def _secret(
    state: ServerRound,
    advert: KeyAdvert,
    revealed: Mapping[int, RevealedShares],
    which: Secret,
) -> bytes:
    """One of a site's secrets, from the shares that were revealed of it.

    Raises:
        TooFewSurvivors: They are too few, or too many are wrong.
    """

    def is_right(secret: bytes) -> bool:
        if which is Secret.SEED:
            return commit(secret, state.terms.round_id) == advert.seed_commitment
        return public_of(secret) == advert.mask_key

    site, holders = advert.sender, state.graph.holders(advert.sender)
    shares = [
        (place, one.share)
        for place, holder in enumerate(holders)
        if holder in revealed
        for one in revealed[holder].shares
        if one.peer == site and one.secret is which
    ]
    secret = combine_shares(shares, state.graph.threshold, is_right)
    if secret is None:
        raise TooFewSurvivors(
            f"too few sites: {len(shares)} of {len(holders)} gave a share about "
            f"{state.terms.name_of(site)}, {state.graph.threshold} right ones must; "
            "nothing was learned: ask again"
        )
    return secret


def _read(
    state: ServerRound,
    expected: Sequence[int],
    replies: Mapping[str, bytes],
    kind: type[_Message],
    check: Callable[[_Message], None],
) -> tuple[dict[int, _Message], tuple[tuple[str, str], ...]]:
    """Good replies of the expected sites by place, in order, and all that was refused so far."""
    good: dict[int, _Message] = {}
    refused = list(state.refused)
    for site in expected:
        name = state.terms.name_of(site)
        if name not in replies:
            continue
        try:
            message = kind.from_bytes(replies[name], state.terms)
            if message.sender != site:
                raise MessageRefused(f"{name} answered for {state.terms.name_of(message.sender)}")
            check(message)
        except MessageRefused as error:
            refused.append((name, str(error)))
        else:
            good[site] = message
    return good, tuple(refused)
