"""Whole rounds in memory: real messages as bytes, sites that drop out where a test says."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedistill import secagg
from fedistill.secagg.masks import Integers

STAGES = ("keys", "shares", "labels", "agree", "unmask")
BOUND = 1_000_000
Tamper = Callable[[str, str, bytes], bytes]


def identities(num_sites: int) -> dict[str, Ed25519PrivateKey]:
    """The same keys in every test; an identity is no noise."""
    return {
        f"site_{number:03d}": Ed25519PrivateKey.from_private_bytes(
            hashlib.sha256(f"identity {number}".encode()).digest()
        )
        for number in range(num_sites)
    }


def make_terms(num_sites: int, **changes) -> secagg.RoundTerms:
    colluding = changes.get("colluding", 0)
    keys = identities(num_sites)
    fields = {
        "run": "run",
        "round": 1,
        "identities": tuple(
            (name, key.public_key().public_bytes_raw()) for name, key in keys.items()
        ),
        "config_sha256": "a" * 64,
        "proxy_sha256": "b" * 64,
        "length": 5,
        "bound": BOUND,
        "grid": 2.0**-10,
        "threshold": secagg.threshold_for(num_sites, colluding),
        "colluding": colluding,
        "min_honest": 2,
    }
    return secagg.RoundTerms(**{**fields, **changes})


def pins(terms: secagg.RoundTerms) -> dict[str, bytes]:
    return dict(terms.identities)


def some_integers(terms: secagg.RoundTerms, seed: int = 0) -> dict[str, Integers]:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(-terms.bound, terms.bound, terms.length, endpoint=True)
        for name, _ in terms.identities
    }


@dataclass
class Recorded:
    """What a server sees of a round, and what came of it."""

    terms: secagg.RoundTerms
    up: dict[tuple[str, str], bytes] = field(default_factory=dict)
    states: dict[str, secagg.SiteState] = field(default_factory=dict)
    server: secagg.ServerRound | None = None
    deliveries: dict[str, secagg.ShareDelivery] = field(default_factory=dict)
    total: Integers | None = None
    stages_done: int = 0

    def copy(self) -> "Recorded":
        return replace(self, up=dict(self.up), states=dict(self.states))


def run(
    terms: secagg.RoundTerms,
    integers: Mapping[str, Integers],
    dropped: Mapping[str, str] | None = None,
    tamper: Tamper = lambda site, stage, data: data,
    until: str = "unmask",
    start: Recorded | None = None,
) -> Recorded:
    """Run a round up to a stage, from its beginning or from where another one stopped.

    `dropped` says at which stage a site stops answering; `tamper` changes what a site sends, after
    it was recorded.
    """
    seen = Recorded(terms) if start is None else start.copy()
    gone = {site: STAGES.index(stage) for site, stage in (dropped or {}).items()}
    for number in range(seen.stages_done, STAGES.index(until) + 1):
        stage = STAGES[number]
        listening = _listening(seen) if number else tuple(integers)
        up = [site for site in listening if gone.get(site, len(STAGES)) > number]
        answer, collect = STEPS[stage](seen, integers)
        replies = {}
        for site in up:
            seen.states[site], message = answer(site)
            seen.up[site, stage] = message.to_bytes()
            replies[site] = tamper(site, stage, seen.up[site, stage])
        collect(replies)
        seen.stages_done = number + 1
    return seen


def _listening(seen: Recorded) -> tuple[str, ...]:
    server = seen.server
    sites = server.survivors or server.sharers or [advert.sender for advert in server.adverts]
    return server.names(sites)


def _keys(seen: Recorded, _integers):
    keys = identities(seen.terms.num_sites)

    def collect(replies):
        seen.server = secagg.collect_adverts(seen.terms, replies)

    return lambda site: secagg.advertise(seen.terms, site, keys[site]), collect


def _shares(seen: Recorded, _integers):
    def collect(replies):
        seen.server, seen.deliveries = secagg.collect_shares(seen.server, replies)

    trusted = pins(seen.terms)
    adverts = seen.server.adverts
    return lambda site: secagg.share(seen.states[site], adverts, trusted), collect


def _labels(seen: Recorded, integers):
    def collect(replies):
        seen.server = secagg.collect_vectors(seen.server, replies)

    def answer(site):
        return secagg.mask(seen.states[site], seen.deliveries[site], integers[site])

    return answer, collect


def _agree(seen: Recorded, _integers):
    def collect(replies):
        seen.server = secagg.collect_signatures(seen.server, replies)

    words = seen.server.participations
    return lambda site: secagg.agree(seen.states[site], words), collect


def _unmask(seen: Recorded, _integers):
    def collect(replies):
        seen.total = secagg.unmask(seen.server, replies)

    signatures = seen.server.signatures
    return lambda site: secagg.reveal(seen.states[site], signatures), collect


STEPS = {
    "keys": _keys,
    "shares": _shares,
    "labels": _labels,
    "agree": _agree,
    "unmask": _unmask,
}
