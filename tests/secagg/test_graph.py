"""The ring above 50 sites: nobody chooses it, and it cannot be cut."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from fedistill import secagg
from fedistill.secagg.graph import Graph, graph_of, most_marked, ring_sizes
from fedistill.secagg.transcript import graph_for
from tests.secagg.rounds import make_terms, run, some_integers


def ring(number: int, num_sites: int = 60, colluding: int = 3) -> Graph:
    transcript = hashlib.sha256(str(number).encode()).digest()
    threshold = secagg.threshold_for(num_sites, colluding)
    return graph_of(tuple(range(num_sites)), transcript, threshold, colluding)


def test_up_to_50_sites_all_are_peers_and_share_with_threshold_t() -> None:
    graph = ring(0, 50)
    assert graph.holders(7) == tuple(range(50))
    assert graph.neighbours(7) == (*range(7), *range(8, 50))
    assert graph.threshold == 27
    assert ring_sizes(50, 0) is None


def test_peers_are_mutual_and_every_site_has_as_many() -> None:
    graph = ring(1)
    for site in range(60):
        assert len(graph.neighbours(site)) == graph.degree < 59
        assert all(site in graph.neighbours(peer) for peer in graph.neighbours(site))


def test_sites_and_server_draw_the_same_ring_from_signed_keys_alone() -> None:
    terms = make_terms(51)
    seen = run(terms, some_integers(terms), until="keys")
    graph = graph_for(terms, seen.server.adverts)
    assert graph == seen.server.graph == graph_for(terms, list(seen.server.adverts))
    other = run(terms, some_integers(terms), until="keys").server.graph
    assert graph.ring != other.ring


def test_every_site_is_as_likely_a_peer_as_any_other() -> None:
    """Chi-square over 2,000 rings, false alarm 1e-6."""
    counts = np.zeros(60)
    for number in range(2_000):
        counts[list(ring(number).neighbours(0))] += 1
    assert counts[0] == 0
    # Peers are drawn without replacement, so the counts vary less than the chi-square law says.
    assert stats.chisquare(counts[1:]).pvalue > 1e-6


@pytest.mark.parametrize("num_sites", [51, 60, 101, 400])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_the_bounds_hold_by_scipys_hypergeometric_law(num_sites: int, share: float) -> None:
    colluding = int(share * num_sites)
    sizes = ring_sizes(num_sites, colluding)
    if sizes is None:
        pytest.skip("all are peers")
    degree, threshold = sizes
    half, others = degree // 2, num_sites - 1
    too_many = stats.hypergeom.logsf(threshold - half - 2, others, colluding, half)
    assert np.log(num_sites) + too_many <= -105 * np.log(2)
    dropouts = -(-num_sites // 10)
    too_few = stats.hypergeom.logsf(degree - threshold, others, dropouts, degree)
    assert np.log(num_sites) + too_few <= -30 * np.log(2)


def test_a_ring_is_the_smallest_that_keeps_the_bounds() -> None:
    degree, _ = ring_sizes(200, 10)
    half = degree // 2 - 1
    needed = 2 + most_marked(200, 10, half, 105) + most_marked(200, 20, 2 * half, 30)
    assert half < needed


def openable(graph: Graph, colluders: set[int], survivors: set[int], site: int) -> bool:
    holders = set(graph.holders(site))
    return len(holders & (colluders | survivors)) >= graph.threshold


def components(graph: Graph, sites: set[int]) -> list[set[int]]:
    left, found = set(sites), []
    while left:
        reached = {left.pop()}
        while more := {peer for site in reached for peer in graph.neighbours(site)} & left:
            reached |= more
            left -= more
        found.append(reached)
    return found


def cut(graph: Graph, colluders: set[int], width: int, start: int, length: int) -> set[int]:
    """Honest survivors when the server drops two arcs of `width` around an arc of `length`."""
    size = len(graph.ring)
    gone = [
        *range(start, start + width),
        *range(start + width + length, start + 2 * width + length),
    ]
    return set(graph.ring) - {graph.ring[place % size] for place in gone} - colluders


@pytest.mark.parametrize("length", [1, 5, 10, 20])
def test_an_arc_that_the_server_cuts_off_stays_closed(length: int) -> None:
    """The server sees the ring, then says who dropped out: it cuts, and opens no part."""
    for number in range(20):
        graph = ring(number)
        colluders = set(np.random.default_rng(number).choice(60, 3, replace=False).tolist())
        for start in range(0, 60, 7):
            survivors = cut(graph, colluders, graph.degree // 2, start, length)
            parts = components(graph, survivors)
            assert len(parts) == 2 or length == 1  # the one site may be a colluder
            for part in parts:
                opened = [openable(graph, colluders, survivors, site) for site in part]
                assert part == survivors or not all(opened)


def test_a_ring_whose_threshold_is_too_low_is_cut_open() -> None:
    """The twin of the test above: with t_k = k/2 an arc of one's own can be opened."""
    graph = ring(0)
    twin = Graph(graph.ring, graph.degree, graph.degree // 2)
    survivors = cut(twin, set(), twin.degree // 2, 0, 15)
    part = min(components(twin, survivors), key=len)
    assert len(part) == 15
    assert all(openable(twin, set(), survivors, site) for site in part)
