"""What a site remembers within a round. It holds secrets: memory only, never a disk."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Self

from fedistill.errors import MessageRefused
from fedistill.secagg.graph import Graph
from fedistill.secagg.messages import KeyAdvert
from fedistill.secagg.terms import RoundTerms
from fedistill.secagg.transcript import graph_for, transcript_of


class Stage(StrEnum):
    """What the site did last."""

    ADVERTISED = "keys"
    SHARED = "shares"
    MASKED = "labels"
    AGREED = "agree"
    REVEALED = "unmask"


@dataclass(frozen=True, kw_only=True)
class HeldShare:
    """The shares of a peer's two secrets that this site holds."""

    peer: int
    seed: bytes = field(repr=False)
    mask_key: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """A site within a round; each step returns the next one, and the old one must be forgotten.

    A step that is repeated from an old state would answer twice, which the newest state refuses.
    Secrets are dropped as soon as the protocol allows, and do not show in `repr`.

    Attributes:
        terms: Of the round.
        site: The site's own place in the roster.
        stage: What it did last.
        identity: Its raw Ed25519 private key.
        mask_key: Its raw X25519 private key for masks; empty once it masked.
        share_key: Its raw X25519 private key for shares; empty once it masked.
        seed: Seed (32 bytes) of its own mask; empty once it masked.
        adverts: Signed keys of all sites that it was told of, in the roster's order.
        sharers: Sites that sent shares.
        held: Shares that it holds, in the roster's order; empty once it revealed them.
        survivors: The one set that it signed.
    """

    terms: RoundTerms
    site: int
    stage: Stage
    identity: bytes = field(repr=False)
    mask_key: bytes = field(repr=False)
    share_key: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    adverts: tuple[KeyAdvert, ...] = ()
    sharers: tuple[int, ...] = ()
    held: tuple[HeldShare, ...] = ()
    survivors: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The site's name."""
        return self.terms.name_of(self.site)

    @cached_property
    def transcript(self) -> bytes:
        """Hash of the terms and of all signed keys."""
        return transcript_of(self.terms, self.adverts)

    @cached_property
    def graph(self) -> Graph:
        """Who masks with whom."""
        return graph_for(self.terms, self.adverts)

    def require(self, *stages: Stage) -> None:
        """Check that the site is at one of these stages.

        Raises:
            MessageRefused: It is at another: the request is early, late or repeated.
        """
        if self.stage not in stages:
            raise MessageRefused(
                f"{self.name} did {self.stage} last and must have done {' or '.join(stages)}: "
                "the request is early, late or repeated"
            )

    def to_bytes(self) -> bytes:
        """For memory between two messages; never for a disk or a wire."""
        fields = {name: getattr(self, name).hex() for name in _SECRETS} | {
            "terms": self.terms.to_text(),
            "site": self.site,
            "stage": self.stage,
            "adverts": [advert.to_bytes().hex() for advert in self.adverts],
            "sharers": self.sharers,
            "held": [[one.peer, one.seed.hex(), one.mask_key.hex()] for one in self.held],
            "survivors": self.survivors,
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`.

        Raises:
            MessageRefused: The bytes are no state.
        """
        try:
            fields = json.loads(data)
            terms = RoundTerms.from_text(fields["terms"])
            secrets = {name: bytes.fromhex(fields[name]) for name in _SECRETS}
            return cls(
                terms=terms,
                site=fields["site"],
                stage=Stage(fields["stage"]),
                adverts=tuple(
                    KeyAdvert.from_bytes(bytes.fromhex(advert), terms)
                    for advert in fields["adverts"]
                ),
                sharers=tuple(fields["sharers"]),
                held=tuple(
                    HeldShare(peer=peer, seed=bytes.fromhex(seed), mask_key=bytes.fromhex(mask_key))
                    for peer, seed, mask_key in fields["held"]
                ),
                survivors=tuple(fields["survivors"]),
                **secrets,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MessageRefused(f"no state of a round: {type(error).__name__}") from error


_SECRETS = ("identity", "mask_key", "share_key", "seed")
