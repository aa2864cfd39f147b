"""Time and bytes of a secure sum, beside bare AES-256-CTR and beside Flower's SecAgg+ primitives.

    python -m benchmarks.secagg

The claims: a site masks its vector in less than 10 times what bare AES-256-CTR needs for its masks;
the server opens the sum in less than a second with one site dropped out; a site sends less than
1.05 times 4 bytes a value, keys and shares included. All run in one process and take turns; times
are the fastest of the repeats. The integers are made up.

    python -m benchmarks.secagg --scale

times whole rounds of more and more sites, all of them in one process, beside n log n. Masks and
shares grow by the ring's few peers, but every site checks the signatures of all others, so that
what all sites spend together grows with the square of their number, and what one spends with the
number.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes
from rich.console import Console
from rich.table import Table

from fedistill import secagg
from fedistill.secagg.masks import Integers

OVER_AES = 10.0
OPENING_SECONDS = 1.0
EXPANSION = 1.05
BOUND = 1_000_000
SCALE = (50, 100, 200, 400)
SCALE_LENGTH = 12_000  # as many as labels of 6,000 proxy rows in two classes

Message = (
    secagg.KeyAdvert
    | secagg.ShareBundle
    | secagg.MaskedVector
    | secagg.SurvivorSignature
    | secagg.RevealedShares
)

LACKS = """\
What Flower's primitives lack: a mask's 32-byte seed is folded to 32 bits that start a Mersenne
Twister, so trying 2^32 seeds, or 624 known outputs, opens a vector; keys carry no signature, so a
server can put its own in their place; survivors are not signed, so a server can ask for both kinds
of share of one site."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Seconds, and bytes up, of one site and of the server.

    Attributes:
        aes: Bare AES-256-CTR for as many streams as a site has masks.
        site: Our site's masked vector: keys, masks, hash and signature.
        server: Our server's sum, with one site dropped out.
        flower_site: The same masks by Flower's primitives.
        flower_server: The same sum by Flower's primitives.
        bytes_up: All that one of our sites sends.
        length: Integers in a vector.
    """

    aes: float
    site: float
    server: float
    flower_site: float
    flower_server: float
    bytes_up: int
    length: int

    @property
    def over_aes(self) -> float:
        """A site's time against that of its bare streams."""
        return self.site / self.aes

    @property
    def expansion(self) -> float:
        """Bytes that a site sends against 4 bytes a value."""
        return self.bytes_up / (4 * self.length)


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round up to where its two costly steps can be repeated; the last site drops out."""

    integers: Integers
    state: secagg.SiteState
    delivery: secagg.ShareDelivery
    server: secagg.ServerRound
    revealed: Mapping[str, bytes]
    total: Integers
    bytes_up: int


def measure(*, sites: int, length: int, repeats: int) -> Figures:
    """Run both ways `repeats` times, in turns."""
    ours = run_round(sites, length)
    site, server = flower_steps(sites, length)
    steps: dict[str, Callable[[], object]] = {
        "aes": lambda: bare_streams(sites, length),
        "site": lambda: secagg.mask(ours.state, ours.delivery, ours.integers),
        "server": lambda: secagg.unmask(ours.server, ours.revealed),
        "flower_site": site,
        "flower_server": server,
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds(step))
    if not np.array_equal(secagg.unmask(ours.server, ours.revealed), ours.total):
        raise RuntimeError("the sum that was timed is wrong")
    fastest = {name: min(taken) for name, taken in times.items()}
    return Figures(**fastest, bytes_up=ours.bytes_up, length=length)


def run_round(sites: int, length: int) -> Round:
    """A round of ours in memory."""
    identities = {f"site_{number:03d}": Ed25519PrivateKey.generate() for number in range(sites)}
    pinned = {name: key.public_key().public_bytes_raw() for name, key in identities.items()}
    terms = secagg.RoundTerms(
        run="benchmark",
        round=0,
        identities=tuple(pinned.items()),
        config_sha256="0" * 64,
        proxy_sha256="0" * 64,
        length=length,
        bound=BOUND,
        grid=1.0,
        threshold=secagg.threshold_for(sites, 0),
        colluding=0,
        min_honest=2,
    )
    random = np.random.default_rng(0)
    integers = {name: random.integers(-BOUND, BOUND, length) for name in identities}
    sent = dict.fromkeys(identities, 0)

    def encode(answers: Mapping[str, tuple[secagg.SiteState, Message]]) -> dict[str, bytes]:
        replies = {name: message.to_bytes() for name, (_, message) in answers.items()}
        for name, data in replies.items():
            sent[name] += len(data)
        return replies

    keys = {name: secagg.advertise(terms, name, key) for name, key in identities.items()}
    server = secagg.collect_adverts(terms, encode(keys))
    shared = {name: secagg.share(keys[name][0], server.adverts, pinned) for name in keys}
    server, deliveries = secagg.collect_shares(server, encode(shared))
    first, *_, dropped = identities
    masked = {
        name: secagg.mask(shared[name][0], deliveries[name], integers[name])
        for name in shared
        if name != dropped
    }
    server = secagg.collect_vectors(server, encode(masked))
    agreed = {name: secagg.agree(masked[name][0], server.participations) for name in masked}
    server = secagg.collect_signatures(server, encode(agreed))
    revealed = {name: secagg.reveal(agreed[name][0], server.signatures) for name in agreed}
    return Round(
        integers=integers[first],
        state=shared[first][0],
        delivery=deliveries[first],
        server=server,
        revealed=encode(revealed),
        total=np.sum([integers[name] for name in masked], axis=0),
        bytes_up=sent[first],
    )


def print_scale(console: Console) -> None:
    """Processor time of whole rounds, all sites and the server one after the other."""
    table = Table(box=None, pad_edge=False)
    for heading in (
        "sites",
        "CPU s of a round",
        "CPU ms a site",
        "against 50",
        "n log n against 50",
    ):
        table.add_column(heading, justify="right")
    first = 0.0
    for sites in SCALE:
        start = time.process_time()
        run_round(sites, SCALE_LENGTH)
        taken = time.process_time() - start
        first = first or taken
        growth = sites * math.log(sites) / (SCALE[0] * math.log(SCALE[0]))
        table.add_row(
            str(sites),
            f"{taken:.1f}",
            f"{1000 * taken / sites:.0f}",
            f"{taken / first:.1f}",
            f"{growth:.1f}",
        )
    console.print(table)


def bare_streams(sites: int, length: int) -> None:
    """As many AES-256-CTR streams as a site has masks, into memory."""
    zeros, buffer = bytes(4 * length), bytearray(4 * length + 15)
    for _ in range(sites):
        Cipher(AES(os.urandom(32)), CTR(bytes(16))).encryptor().update_into(zeros, buffer)


def flower_steps(sites: int, length: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """A site's masks and the server's sum, from the primitives that Flower's SecAgg+ calls."""
    threshold = secagg.threshold_for(sites, 0)
    keys = [generate_key_pairs() for _ in range(sites)]
    seeds = [os.urandom(32) for _ in range(sites)]
    values = np.zeros(length, np.int64)

    def pair_masks(own: int, others: range) -> None:
        for other in others:
            key = generate_shared_key(keys[own][0], keys[other][1])
            np.add(values, pseudo_rand_gen(key, secagg.MODULUS, [(length,)])[0])

    def site() -> None:
        np.add(values, pseudo_rand_gen(seeds[0], secagg.MODULUS, [(length,)])[0])
        pair_masks(0, range(1, sites))

    shares = [create_shares(seed, threshold, sites) for seed in seeds[:-1]]
    of_dropped = create_shares(private_key_to_bytes(keys[-1][0]), threshold, sites)

    def server() -> None:
        for one in shares:
            seed = combine_shares(one[:threshold])
            np.subtract(values, pseudo_rand_gen(seed, secagg.MODULUS, [(length,)])[0])
        combine_shares(of_dropped[:threshold])
        pair_masks(sites - 1, range(sites - 1))

    return site, server


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--length", type=int, default=1_000_000, help="integers in a vector")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", action="store_true", help="rounds of 50 to 400 sites")
    options = parser.parse_args()
    for name, least in (("sites", 3), ("length", 1), ("repeats", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}={getattr(options, name)} must be at least {least}")
    console = Console(highlight=False, width=100)
    if options.scale:
        print_scale(console)
        return
    figures = measure(sites=options.sites, length=options.length, repeats=options.repeats)
    console.print(f"{options.sites} sites, {options.length:,} values, one site drops out")
    console.print(as_table(figures))
    for what, value, bound in (
        ("a site against bare AES-256-CTR, times", figures.over_aes, OVER_AES),
        ("opening the sum, seconds", figures.server, OPENING_SECONDS),
        ("bytes up against 4 bytes a value, times", figures.expansion, EXPANSION),
    ):
        verdict = "holds" if value < bound else "does not hold here"
        console.print(f"{what}: {value:.3f}; the claim of less than {bound:g} {verdict}")
    console.print(LACKS)


def as_table(figures: Figures) -> Table:
    """Milliseconds side by side."""
    table = Table(box=None, pad_edge=False)
    for heading in ("ms", "fedistill", "Flower's primitives", "ratio"):
        table.add_column(heading, justify="left" if heading == "ms" else "right")
    table.add_row("bare AES-256-CTR, a site's masks", f"{1000 * figures.aes:.1f}", "", "")
    for what, ours, theirs in (
        ("a site masks its vector", figures.site, figures.flower_site),
        ("the server opens the sum", figures.server, figures.flower_server),
    ):
        table.add_row(what, f"{1000 * ours:.1f}", f"{1000 * theirs:.1f}", f"{theirs / ours:.1f}")
    return table


if __name__ == "__main__":
    main()
