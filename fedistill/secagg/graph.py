"""Who masks with whom: everyone up to 50 sites, above that a random ring that nobody chooses.

Bell et al. 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", section 4: the
sites stand on a ring in random order, and each masks with the k/2 before and the k/2 after it and
shares its secrets, t_k of k + 1, with the same. The order comes from a hash of the round's terms
and of all signed, fresh keys, so no one picks it; whoever controls keys or leaves sites out can
only draw again, and is granted 2^64 draws.

Bad graph. Let c sites collude with the server, which sees the ring and then says who dropped out.
Let x be the most colluders among the k/2 sites after any honest site, and t_k = k/2 + 2 + x.

- Less than everyone. Say the sum over some, not all, of the honest survivors could be opened. Then
  one of them, u, is followed on the ring by an honest survivor that is not among them, hence is
  not u's peer. So the k/2 sites after u hold no honest survivor, and shares of u's own mask come
  from u, the k/2 sites before it and x colluders at most: 1 + k/2 + x < t_k. So it stays closed.
- Keys of a survivor. Honest sites give no share of them; colluders hold k/2 + x < t_k at most.
- Ending. Every site needs t_k of its k peers to remain: at most d = k - t_k of them may drop out.

All sites but one, N = n - 1, stand in random order around that one, so with D dropouts

    P[x is exceeded] <= n P[Hypergeometric(N, c, k/2) > x]
    P[d is exceeded] <= n P[Hypergeometric(N, D, k)   > d]

and k is the smallest even number with k/2 >= 2 + x + d, where the first bound is below 2^-105: with
2^64 draws, below 2^-40. The second is below 2^-30, as in the paper, and nobody is granted draws:
it is about rounds that end without a sum, which a server can have at any time. c is `colluding` of
the terms, and D a tenth of the sites, rounded up. What is hidden does not depend on d or D.
"""

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

COMPLETE_UP_TO = 50
"""Sites that all mask with each other; above, the graph is sparse."""

DROPOUTS = Fraction(1, 10)
"""Share of the sites that may drop out of a sparse graph's round."""

HIDING_BITS = 105
ENDING_BITS = 30
_LABEL = b"fedistill secagg 1 graph\0"


@dataclass(frozen=True)
class Graph:
    """Peers of every site.

    Attributes:
        ring: Places in the roster of all sites that sent keys, in the order of the ring.
        degree: Peers of a site.
        threshold: Shares that give a site's secret.
    """

    ring: tuple[int, ...]
    degree: int
    threshold: int

    def holders(self, site: int) -> tuple[int, ...]:
        """The site and its peers, who hold shares of its secrets, by place in the roster."""
        if self.degree >= len(self.ring) - 1:
            return tuple(sorted(self.ring))
        middle, half = self.ring.index(site), self.degree // 2
        steps = range(middle - half, middle + half + 1)
        return tuple(sorted(self.ring[step % len(self.ring)] for step in steps))

    def neighbours(self, site: int) -> tuple[int, ...]:
        """The site's peers, by place in the roster."""
        return tuple(peer for peer in self.holders(site) if peer != site)


def graph_of(sites: tuple[int, ...], transcript: bytes, threshold: int, colluding: int) -> Graph:
    """The graph of a round.

    Args:
        sites: Places in the roster of the sites that sent keys.
        transcript: Hash of the terms and of these sites' signed keys.
        threshold: t of the round, which is that of the shares where all are peers.
        colluding: c of the round.
    """
    sizes = ring_sizes(len(sites), colluding)
    if sizes is None:
        return Graph(tuple(sorted(sites)), len(sites) - 1, threshold)

    def place(site: int) -> bytes:
        return hashlib.sha256(_LABEL + transcript + site.to_bytes(2, "big")).digest()

    return Graph(tuple(sorted(sites, key=place)), *sizes)


@cache
def ring_sizes(num_sites: int, colluding: int) -> tuple[int, int] | None:
    """Degree k and threshold t_k of a sparse graph, or None where all sites are peers."""
    if num_sites <= COMPLETE_UP_TO:
        return None
    dropouts = math.ceil(DROPOUTS * num_sites)
    for half in range(2, (num_sites - 1) // 2):
        colluders = most_marked(num_sites, colluding, half, HIDING_BITS)
        if half >= 2 + colluders + most_marked(num_sites, dropouts, 2 * half, ENDING_BITS):
            return 2 * half, half + 2 + colluders
    return None


@cache
def most_marked(num_sites: int, marked: int, drawn: int, bits: int) -> int:
    """The smallest q with n P[Hypergeometric(n - 1, marked, drawn) > q] <= 2^-bits, exactly."""
    others = num_sites - 1
    marked = min(marked, others)
    allowed = math.comb(others, drawn)
    above = 0
    for count in range(min(marked, drawn), 0, -1):
        above += math.comb(marked, count) * math.comb(others - marked, drawn - count)
        if num_sites * above << bits > allowed:
            return count
    return 0
