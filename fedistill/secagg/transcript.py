"""What both sides compute from the signed keys of a round: transcript, graph, checks."""

import hashlib
from collections.abc import Sequence, Sized

from fedistill.errors import MessageRefused, TooFewSurvivors
from fedistill.secagg.graph import Graph, graph_of
from fedistill.secagg.keys import Signed, is_signed, is_usable
from fedistill.secagg.masks import Residues
from fedistill.secagg.messages import (
    KeyAdvert,
    Participation,
    SurvivorSignature,
    residues_to_bytes,
)
from fedistill.secagg.terms import RoundTerms
from fedistill.secagg.wire import set_bits

_TRANSCRIPT = b"fedistill secagg 1 transcript\0"
_COMMITMENT = b"fedistill secagg 1 seed\0"


def commit(seed: bytes, round_id: bytes) -> bytes:
    """Hash (32 bytes) that binds the seed of a site's own mask and, as it is random, hides it."""
    return hashlib.sha256(_COMMITMENT + round_id + seed).digest()


def transcript_of(terms: RoundTerms, adverts: Sequence[KeyAdvert]) -> bytes:
    """Hash (32 bytes) of the terms and of all signed keys, in the roster's order."""
    together = b"".join(advert.to_bytes() for advert in adverts)
    return hashlib.sha256(_TRANSCRIPT + terms.round_id + together).digest()


def graph_for(terms: RoundTerms, adverts: Sequence[KeyAdvert]) -> Graph:
    """Who masks with whom among the sites that sent keys."""
    sites = tuple(advert.sender for advert in adverts)
    return graph_of(sites, transcript_of(terms, adverts), terms.threshold, terms.colluding)


def check_advert(terms: RoundTerms, advert: KeyAdvert) -> None:
    """Check a site's keys.

    Raises:
        MessageRefused: They are of another round, unsigned, or no usable keys.
    """
    name, identity = terms.identities[advert.sender]
    if advert.round_id != terms.round_id:
        raise MessageRefused(f"keys of {name} are of another run or round, or of other terms")
    if not is_signed(identity, Signed.KEYS, terms.round_id, advert.signed_parts, advert.signature):
        raise MessageRefused(f"keys of {name} are not signed by its identity")
    if not (is_usable(advert.mask_key) and is_usable(advert.share_key)):
        raise MessageRefused(f"keys of {name} include one of low order")


def vector_sha256(residues: Residues) -> bytes:
    """Hash (32 bytes) of a masked vector."""
    return hashlib.sha256(residues_to_bytes(residues)).digest()


def participation_parts(
    terms: RoundTerms, transcript: bytes, sharers: Sequence[int], vector_sha256: bytes
) -> tuple[bytes, ...]:
    """What a `Participation` signs besides the terms."""
    return transcript, set_bits(sharers, terms), vector_sha256


def survivor_parts(
    terms: RoundTerms, transcript: bytes, sharers: Sequence[int], survivors: Sequence[int]
) -> tuple[bytes, ...]:
    """What a `SurvivorSignature` signs besides the terms."""
    return transcript, set_bits(sharers, terms), set_bits(survivors, terms)


def check_signed(
    terms: RoundTerms,
    message: Participation | SurvivorSignature,
    what: Signed,
    parts: Sequence[bytes],
) -> None:
    """Check a signature of a round's second half.

    Raises:
        MessageRefused: It is of another round, or its sender signed something else or nothing.
    """
    name, identity = terms.identities[message.sender]
    if message.round_id != terms.round_id or not is_signed(
        identity, what, terms.round_id, parts, message.signature
    ):
        raise MessageRefused(f"{what.rsplit(maxsplit=1)[-1]} of {name} is not signed as it must be")


def check_enough(terms: RoundTerms, sites: Sized, did: str) -> None:
    """Check that a sum can still be opened.

    Raises:
        TooFewSurvivors: Too few sites remain.
    """
    needed = terms.survivors_at_least
    if len(sites) < needed:
        raise TooFewSurvivors(
            f"too few sites: {len(sites)} of {terms.num_sites} {did}, at least {needed} must "
            f"(t = {terms.threshold}, c = {terms.colluding}, min_honest = {terms.min_honest}); "
            "nothing was learned: ask again when more sites are up"
        )


def check_subset(sites: Sequence[int], known: Sequence[int], what: str) -> None:
    """Check that sites are named once each, in order, and that all are known.

    Raises:
        MessageRefused: One is repeated, out of order or unknown.
    """
    if list(sites) != sorted(set(sites)):
        raise MessageRefused(f"{what} {list(sites)} must be in the roster's order, each once")
    if unknown := sorted(set(sites) - set(known)):
        raise MessageRefused(f"{what} {unknown} must be among {sorted(known)}")
