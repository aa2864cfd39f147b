"""A site's side of secure aggregation: five steps, each from a state to the next and a message.

    advertise -> share -> mask -> agree -> reveal

Bonawitz et al. 2017, figure 4, the variant for a server that may do anything. A step that raises
sends nothing, and the site is then out of the round. What the server must not get:

- one site's integers. They leave under a mask of the site's own and one with every peer. Shares of
  the first are revealed for survivors, shares of the key of the others for those who dropped out,
  never both for one peer (PRIVACY rule 15), and only for the one set of survivors that t sites
  signed (rule 16), every one of whom signed that it masked among the same peers as this site.
- a sum over few. Below t, or below `min_honest` + c survivors, nobody signs.
- a site that it invented. Every site of the roster must have the key that this site's own policy
  pins (rule 17).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedistill.errors import MessageRefused, TermsRefused, TooFewSurvivors
from fedistill.secagg.keys import Signed, fresh_private_key, public_of, sign
from fedistill.secagg.masks import Integers, add_mask, pair_key, self_key, to_residues
from fedistill.secagg.messages import (
    KeyAdvert,
    MaskedVector,
    Participation,
    RevealedShare,
    RevealedShares,
    Secret,
    ShareBundle,
    ShareDelivery,
    SurvivorSignature,
)
from fedistill.secagg.share_encryption import decrypt_share, encrypt_share
from fedistill.secagg.sharing import SECRET_BYTES, split_secret
from fedistill.secagg.state import HeldShare, SiteState, Stage
from fedistill.secagg.terms import RoundTerms
from fedistill.secagg.transcript import (
    check_advert,
    check_enough,
    check_signed,
    check_subset,
    commit,
    participation_parts,
    survivor_parts,
    vector_sha256,
)


def advertise(
    terms: RoundTerms, site: str, identity: Ed25519PrivateKey
) -> tuple[SiteState, KeyAdvert]:
    """Fresh keys of a site for one round, signed over all its terms.

    To be called once for a run and round. Keys and seed come from the operating system's CSPRNG.

    Raises:
        TermsRefused: The roster does not name the site, or gives it another key.
    """
    index = terms.index_of(site)
    if identity.public_key().public_bytes_raw() != terms.identities[index][1]:
        raise TermsRefused(f"the roster gives {site} another key than its own: compare the pins")
    state = SiteState(
        terms=terms,
        site=index,
        stage=Stage.ADVERTISED,
        identity=identity.private_bytes_raw(),
        mask_key=fresh_private_key(),
        share_key=fresh_private_key(),
        seed=os.urandom(SECRET_BYTES),
    )
    unsigned = KeyAdvert(
        round_id=terms.round_id,
        sender=index,
        mask_key=public_of(state.mask_key),
        share_key=public_of(state.share_key),
        seed_commitment=commit(state.seed, terms.round_id),
        signature=b"",
    )
    signature = sign(state.identity, Signed.KEYS, terms.round_id, unsigned.signed_parts)
    return state, replace(unsigned, signature=signature)


def share(
    state: SiteState, adverts: Sequence[KeyAdvert], pinned: Mapping[str, bytes]
) -> tuple[SiteState, ShareBundle]:
    """Encrypted shares of the site's seed and mask key, for each of its peers.

    Args:
        state: After `advertise`.
        adverts: Of all sites that sent keys, this one's too, in the roster's order.
        pinned: Raw Ed25519 public keys by site name, from the site's own policy.

    Raises:
        MessageRefused: A site is unknown or has another key than the pinned one, a signature
            fails, keys are repeated, or the site's own are missing or were swapped.
        TooFewSurvivors: Too few sites sent keys.
    """
    state.require(Stage.ADVERTISED)
    _check_pins(state, pinned)
    check_subset([advert.sender for advert in adverts], range(state.terms.num_sites), "keys of")
    for advert in adverts:
        check_advert(state.terms, advert)
    _check_own(state, adverts)
    check_enough(state.terms, adverts, "sent keys")
    state = replace(state, stage=Stage.SHARED, adverts=tuple(adverts))

    holders, threshold = state.graph.holders(state.site), state.graph.threshold
    seeds = split_secret(state.seed, threshold, len(holders))
    keys = split_secret(state.mask_key, threshold, len(holders))
    by_index = {advert.sender: advert for advert in adverts}
    shares, held = [], []
    for peer, seed, key in zip(holders, seeds, keys, strict=True):
        if peer == state.site:
            held.append(HeldShare(peer=peer, seed=seed, mask_key=key))
        else:
            shares.append(encrypt_share(state, by_index[peer], seed + key))
    bundle = ShareBundle(round_id=state.terms.round_id, sender=state.site, shares=tuple(shares))
    return replace(state, held=tuple(held)), bundle


def mask(
    state: SiteState, delivery: ShareDelivery, integers: Integers
) -> tuple[SiteState, MaskedVector]:
    """The site's integers under all its masks, and its signed word among whom it masked.

    A share that does not decrypt is not held, which the round survives while t others are; the
    peer that it came from is masked with all the same.

    Args:
        state: After `share`.
        delivery: Who sent shares, and the shares for this site.
        integers: (length,) int64 from -bound to bound; the caller clamps and noises them first.

    Raises:
        ValueError: `integers` is not of that dtype and shape, or beyond the bound.
        MessageRefused: The delivery is of another round, for another site, or not complete.
        TooFewSurvivors: Too few sites sent shares.
    """
    state.require(Stage.SHARED)
    _check_integers(state.terms, integers)
    check_delivery(state, delivery)
    peers = [one.peer for one in delivery.shares]
    by_index = {advert.sender: advert for advert in state.adverts}
    opened = [decrypt_share(state, by_index[one.peer], one.ciphertext) for one in delivery.shares]
    held = [*state.held, *(share for share in opened if share is not None)]

    residues = to_residues(integers)
    add_mask(residues, self_key(state.seed, state.transcript, state.site))
    for peer in peers:
        pair = (state.site, peer)
        key = pair_key(state.mask_key, by_index[peer].mask_key, state.transcript, pair)
        add_mask(residues, key, subtract=state.site > peer)

    hashed = vector_sha256(residues)
    parts = participation_parts(state.terms, state.transcript, delivery.sharers, hashed)
    word = Participation(
        round_id=state.terms.round_id,
        sender=state.site,
        vector_sha256=hashed,
        signature=sign(state.identity, Signed.PARTICIPATION, state.terms.round_id, parts),
    )
    after = replace(
        state,
        stage=Stage.MASKED,
        mask_key=b"",
        share_key=b"",
        seed=b"",
        sharers=delivery.sharers,
        held=tuple(sorted(held, key=lambda one: one.peer)),
    )
    return after, MaskedVector(participation=word, residues=residues)


def agree(
    state: SiteState, participations: Sequence[Participation]
) -> tuple[SiteState, SurvivorSignature]:
    """The site's signature of the survivors. The same set again gets the same signature.

    Args:
        state: After `mask`.
        participations: Of all survivors, in the roster's order.

    Raises:
        MessageRefused: A survivor did not sign that it masked among the same sites, this site is
            missing, or it signed another set in this round.
        TooFewSurvivors: Below t, or below `min_honest` + c.
    """
    state.require(Stage.MASKED, Stage.AGREED)
    survivors = tuple(word.sender for word in participations)
    check_subset(survivors, state.sharers, "survivors")
    for word in participations:
        parts = participation_parts(
            state.terms, state.transcript, state.sharers, word.vector_sha256
        )
        check_signed(state.terms, word, Signed.PARTICIPATION, parts)
    if state.site not in survivors:
        raise MessageRefused(f"survivors must include {state.name}, which sent its vector")
    check_enough(state.terms, survivors, "survived")
    if state.stage is Stage.AGREED and survivors != state.survivors:
        raise MessageRefused(f"{state.name} signed another set of survivors in this round")
    signed = survivor_parts(state.terms, state.transcript, state.sharers, survivors)
    signature = SurvivorSignature(
        round_id=state.terms.round_id,
        sender=state.site,
        signature=sign(state.identity, Signed.SURVIVORS, state.terms.round_id, signed),
    )
    return replace(state, stage=Stage.AGREED, survivors=survivors), signature


def reveal(
    state: SiteState, signatures: Sequence[SurvivorSignature]
) -> tuple[SiteState, RevealedShares]:
    """Shares that open the sum: of the seed of each survivor, of the key of each dropped peer.

    Args:
        state: After `agree`.
        signatures: Of at least t survivors over the set that this site signed, in order.

    Raises:
        MessageRefused: A signature fails or is repeated, or the shares were revealed before.
        TooFewSurvivors: Fewer than t signatures.
    """
    state.require(Stage.AGREED)
    signers = [signature.sender for signature in signatures]
    check_subset(signers, state.survivors, "signers")
    parts = survivor_parts(state.terms, state.transcript, state.sharers, state.survivors)
    for signature in signatures:
        check_signed(state.terms, signature, Signed.SURVIVORS, parts)
    if len(signers) < state.terms.threshold:
        raise TooFewSurvivors(
            f"too few sites: {len(signers)} of {state.terms.num_sites} signed the survivors, "
            f"t = {state.terms.threshold} must; nothing was revealed"
        )
    held = {one.peer: one for one in state.held}
    shares = tuple(
        _revealed(state, peer, held.get(peer)) for peer in state.graph.holders(state.site)
    )
    message = RevealedShares(round_id=state.terms.round_id, sender=state.site, shares=shares)
    return replace(state, stage=Stage.REVEALED, held=()), message


def _revealed(state: SiteState, peer: int, held: HeldShare | None) -> RevealedShare:
    if held is None:
        return RevealedShare(peer=peer, secret=Secret.NEITHER, share=bytes(SECRET_BYTES))
    if peer in state.survivors:
        return RevealedShare(peer=peer, secret=Secret.SEED, share=held.seed)
    return RevealedShare(peer=peer, secret=Secret.MASK_KEY, share=held.mask_key)


def _check_pins(state: SiteState, pinned: Mapping[str, bytes]) -> None:
    for index, (name, key) in enumerate(state.terms.identities):
        if index == state.site:
            continue
        if name not in pinned:
            raise MessageRefused(f"{name} is in the roster and not pinned by {state.name}'s policy")
        if pinned[name] != key:
            raise MessageRefused(f"{name} has another key in the roster than {state.name} pins")


def _check_own(state: SiteState, adverts: Sequence[KeyAdvert]) -> None:
    own = (
        public_of(state.mask_key),
        public_of(state.share_key),
        commit(state.seed, state.terms.round_id),
    )
    for advert in adverts:
        if advert.sender == state.site:
            if (advert.mask_key, advert.share_key, advert.seed_commitment) != own:
                raise MessageRefused(f"keys of {state.name} are not those that it sent")
            return
    raise MessageRefused(f"keys of {state.name} itself must be among those handed out")


def _check_integers(terms: RoundTerms, integers: Integers) -> None:
    if integers.dtype != np.int64 or integers.shape != (terms.length,):
        raise ValueError(
            f"integers are {integers.dtype}{integers.shape}, must be int64({terms.length},)"
        )
    if int(integers.max()) > terms.bound or int(integers.min()) < -terms.bound:
        raise ValueError(f"integers must lie from -{terms.bound} to {terms.bound}: clamp them")


def check_delivery(state: SiteState, delivery: ShareDelivery) -> None:
    """Check a delivery before anything is paid for what `mask` would send.

    Raises:
        MessageRefused: It is of another round, for another site, or not complete.
        TooFewSurvivors: Too few sites sent shares.
    """
    state.require(Stage.SHARED)
    if delivery.round_id != state.terms.round_id or delivery.receiver != state.site:
        raise MessageRefused(f"shares are of another round, or not for {state.name}")
    known = [advert.sender for advert in state.adverts]
    check_subset(delivery.sharers, known, "sharers")
    if state.site not in delivery.sharers:
        raise MessageRefused(f"sharers must include {state.name}, which sent its shares")
    check_enough(state.terms, delivery.sharers, "sent shares")
    sharers = set(delivery.sharers)
    expected = [peer for peer in state.graph.neighbours(state.site) if peer in sharers]
    if [one.peer for one in delivery.shares] != expected:
        raise MessageRefused(f"shares for {state.name} must come from {expected}, in order")
