"""What a round of secure aggregation is about: all of it public, all of it signed.

Every signature, key and share of a round is bound to the hash of its terms, so nothing of one round
can be used in another.

Threshold. Any t of the n sites can finish a round. Of two different survivor sets that t sites each
have signed, at least 2t - n sites signed both; an honest site signs one set a round, so with c
colluders two sets are impossible if 2t > n + c (Bonawitz et al. 2017, "Practical Secure Aggregation
for Privacy-Preserving Machine Learning", section 6 and theorem 6.5). Fewer than t sites hold
nothing of another site's secrets.
"""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Self

from fedistill.errors import TermsRefused

MODULUS = 2**32
"""Masked integers are residues of it."""

VERSION = 1
"""Of the messages; part of the signed terms."""

_LARGEST_SUM = MODULUS // 2
_MOST_SITES = 2**16 - 1
_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class RoundTerms:
    """Everything public that the keys of a round are signed over.

    Attributes:
        run: The run that asks.
        round: Number of the round, counted by the run.
        identities: (site name, raw Ed25519 public key) of every site, sorted by name: the roster.
        config_sha256: Sha256 (hex) of the question that the vectors answer.
        proxy_sha256: Sha256 (hex) of the proxy set.
        length: Integers in a site's vector.
        bound: Every site's integers lie from -bound to bound.
        grid: The step of the integers' grid.
        threshold: t, how many sites must agree on the survivors, and finish.
        colluding: c, how many sites may work together with the server.
        min_honest: How many honest sites' integers a sum must hold at least.
    """

    run: str
    round: int
    identities: tuple[tuple[str, bytes], ...]
    config_sha256: str
    proxy_sha256: str
    length: int
    bound: int
    grid: float
    threshold: int
    colluding: int
    min_honest: int

    def __post_init__(self) -> None:
        """Check the terms.

        Raises:
            TermsRefused: A field is out of bounds, or the terms promise too little.
        """
        _check_roster(self.identities)
        _check_numbers(self)
        check_threshold(self.num_sites, self.threshold, self.colluding)
        _check_honest(self)

    @property
    def num_sites(self) -> int:
        """n, the size of the roster."""
        return len(self.identities)

    @property
    def survivors_at_least(self) -> int:
        """How many sites must remain for a sum to be opened."""
        return max(self.threshold, self.min_honest + self.colluding)

    @cached_property
    def round_id(self) -> bytes:
        """Sha256 (32 bytes) of all terms."""
        return hashlib.sha256(self.to_text().encode()).digest()

    def to_text(self) -> str:
        """The terms as JSON: one text for equal terms, which is what is hashed."""
        fields = asdict(self) | {
            "version": VERSION,
            "modulus": MODULUS,
            "grid": float(self.grid).hex(),
            "identities": [[name, key.hex()] for name, key in self.identities],
        }
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Inverse of `to_text`.

        Raises:
            TermsRefused: The text is none, of another version, or states what terms may not.
        """
        try:
            fields = json.loads(text)
            if (fields.pop("version"), fields.pop("modulus")) != (VERSION, MODULUS):
                raise TermsRefused(f"terms must be of version {VERSION} and modulus {MODULUS}")
            fields["grid"] = float.fromhex(fields["grid"])
            fields["identities"] = tuple(
                (name, bytes.fromhex(key)) for name, key in fields["identities"]
            )
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TermsRefused(f"terms cannot be read: {type(error).__name__}") from error

    def name_of(self, index: int) -> str:
        """Name of the site at a place in the roster."""
        return self.identities[index][0]

    def index_of(self, site: str) -> int:
        """A site's place in the roster.

        Raises:
            TermsRefused: The roster does not name it.
        """
        for index, (name, _) in enumerate(self.identities):
            if name == site:
                return index
        raise TermsRefused(f"site={site!r} must be in the roster: {self._names()}")

    def _names(self) -> str:
        return ", ".join(name for name, _ in self.identities)


def threshold_for(num_sites: int, colluding: int) -> int:
    """The smallest t with 2t > n + c.

    Raises:
        TermsRefused: No t up to n does it, or fewer than two sites would be honest.
    """
    if num_sites < 2:
        raise TermsRefused(f"num_sites={num_sites} must be at least 2: nobody hides alone")
    if not 0 <= colluding <= num_sites - 2:
        raise TermsRefused(
            f"colluding={colluding} must lie from 0 to {num_sites - 2}, for two of "
            f"{num_sites} sites to be honest: expect fewer colluders, or invite more sites"
        )
    return (num_sites + colluding) // 2 + 1


def check_threshold(num_sites: int, threshold: int, colluding: int) -> None:
    """Check t against n and c.

    Raises:
        TermsRefused: Not 2t > n + c, or t is above n.
    """
    smallest = threshold_for(num_sites, colluding)
    if not smallest <= threshold <= num_sites:
        raise TermsRefused(
            f"threshold={threshold} must lie from {smallest} to {num_sites}: with {num_sites} "
            f"sites and {colluding} colluders two survivor sets are possible unless 2t > n + c"
        )


def _check_roster(identities: tuple[tuple[str, bytes], ...]) -> None:
    names = [name for name, _ in identities]
    if names != sorted(set(names)) or "" in names:
        raise TermsRefused(f"identities must be sorted by name, each named once: {names}")
    if len(names) > _MOST_SITES:
        raise TermsRefused(f"identities: {len(names)} sites must be at most {_MOST_SITES}")
    if any(len(key) != _KEY_BYTES for _, key in identities):
        raise TermsRefused(f"identities must have raw Ed25519 public keys of {_KEY_BYTES} bytes")
    if len({key for _, key in identities}) != len(names):
        raise TermsRefused("identities must have a key of its own for each site")


def _check_numbers(terms: RoundTerms) -> None:
    if not terms.run or terms.round < 0:
        raise TermsRefused(f"run={terms.run!r} must not be empty, round={terms.round} not negative")
    for name in ("config_sha256", "proxy_sha256"):
        if not re.fullmatch("[0-9a-f]{64}", getattr(terms, name)):
            raise TermsRefused(f"{name}={getattr(terms, name)!r} must be 64 hexadecimal digits")
    for name in ("length", "bound"):
        if getattr(terms, name) < 1:
            raise TermsRefused(f"{name}={getattr(terms, name)} must be at least 1")
    if not 0 < terms.grid < math.inf:
        raise TermsRefused(f"grid={terms.grid} must be a positive number")
    if terms.num_sites * terms.bound >= _LARGEST_SUM:
        raise TermsRefused(
            f"bound={terms.bound} times {terms.num_sites} sites must be below {_LARGEST_SUM}, or "
            "the sum wraps around: take a coarser grid or a smaller clip"
        )


def _check_honest(terms: RoundTerms) -> None:
    most = terms.num_sites - terms.colluding
    if not 2 <= terms.min_honest <= most:
        raise TermsRefused(
            f"min_honest={terms.min_honest} must lie from 2 to {most}, the {terms.num_sites} sites "
            f"less {terms.colluding} colluders: a sum over one honest site is that site's vector"
        )
