"""A server that records everything, alone or with colluders, learns the sum and nothing else.

Site 0's vector is all at one end of the range or all at the other. The server removes every mask
that it can from what it has, and compares the top bytes of what is left by a chi-square test of
homogeneity, the two inputs against each other. False alarm: 1e-6 over all views together. Power: a
twentieth of the values left bare in one view is caught with at least 99.9%.
"""

import hashlib
import random

import numpy as np
import pytest
from scipy import stats

from fedistill import secagg
from fedistill.secagg import site
from fedistill.secagg.masks import Residues, add_mask, pair_key, self_key
from fedistill.secagg.messages import MaskedVector, RevealedShares, Secret
from fedistill.secagg.sharing import combine_shares
from tests.secagg.rounds import Recorded, make_terms, run

FALSE_ALARM = 1e-6
POWER = 0.999
LENGTH = 16_384
BINS = 256
SITE = "site_000"
NUM_SITES = 4
COLLUDER = 3


def terms_of(number: int) -> secagg.RoundTerms:
    return make_terms(
        NUM_SITES, colluding=1, length=LENGTH, bound=(2**31 - 1) // NUM_SITES, round=number
    )


def inputs(terms: secagg.RoundTerms, sign: int, others: int = 0) -> dict[str, np.ndarray]:
    """Site 0 at one end of the range, the others at a value of no interest."""
    values = {name: np.full(LENGTH, others, np.int64) for name, _ in terms.identities}
    return values | {SITE: np.full(LENGTH, sign * terms.bound, np.int64)}


def vector(seen: Recorded, name: str = SITE) -> Residues:
    data = seen.up[name, "labels"]
    return MaskedVector.from_bytes(data, seen.terms).residues.copy()


def secret_of(seen: Recorded, index: int, which: Secret) -> bytes:
    """What the revealed shares give, as a server would put it together."""
    shares = [
        (seen.terms.index_of(name), one.share)
        for (name, stage), data in seen.up.items()
        if stage == "unmask"
        for one in RevealedShares.from_bytes(data, seen.terms).shares
        if (one.peer, one.secret) == (index, which)
    ]
    found = combine_shares(shares, seen.terms.threshold, lambda secret: True)
    assert found is not None
    return found


def without_own_mask(seen: Recorded, name: str = SITE) -> Residues:
    """A survivor's own mask is revealed; those of its pairs are left."""
    bare, index = vector(seen, name), seen.terms.index_of(name)
    seed = secret_of(seen, index, Secret.SEED)
    add_mask(bare, self_key(seed, seen.server.transcript, index), subtract=True)
    return bare


def without_a_colluders_mask(seen: Recorded, private: bytes) -> Residues:
    """The colluder says its mask key besides."""
    bare = without_own_mask(seen)
    key = pair_key(private, seen.server.adverts[0].mask_key, seen.server.transcript, (0, COLLUDER))
    add_mask(bare, key, subtract=True)
    return bare


def without_pair_masks(seen: Recorded) -> Residues:
    """Of a site that the server calls dropped after it got the vector; its own mask is left."""
    bare = vector(seen)
    private = secret_of(seen, 0, Secret.MASK_KEY)
    for peer in range(1, NUM_SITES):
        public = seen.server.adverts[peer].mask_key
        add_mask(bare, pair_key(private, public, seen.server.transcript, (0, peer)), subtract=True)
    return bare


def call_dropped(name: str, stage: str, data: bytes) -> bytes:
    return b"" if (name, stage) == (SITE, "labels") else data


def views(sign: int) -> dict[str, Residues]:
    """All that the server can make of site 0's vectors, over three rounds."""
    rounds, colluders_keys = [], []
    for number in (0, 1):
        terms = terms_of(number)
        keys = run(terms, inputs(terms, sign), until="keys")
        colluders_keys.append(keys.states[f"site_{COLLUDER:03d}"].mask_key)
        # Equal inputs would cancel between rounds and show nothing of reused masks.
        values = inputs(terms, sign if number == 0 else 0)
        rounds.append(run(terms, values, start=keys))
    terms = terms_of(2)
    late = run(terms, inputs(terms, sign), tamper=call_dropped)
    return {
        "as it came": vector(rounds[0]),
        "without its own mask": without_own_mask(rounds[0]),
        "without its own mask and a colluder's": without_a_colluders_mask(
            rounds[0], colluders_keys[0]
        ),
        "called dropped, without pair masks": without_pair_masks(late),
        "between two rounds": vector(rounds[0]) - vector(rounds[1]),
        "between two sites": without_own_mask(rounds[0]) - without_own_mask(rounds[0], "site_001"),
    }


def told_apart() -> dict[str, float]:
    """P-value of each view: how odd it is if the two inputs look alike."""
    low, high = views(-1), views(1)
    values = {}
    for name in low:
        table = [np.bincount(view[name] >> 24, minlength=BINS) for view in (low, high)]
        table = np.array(table)[:, np.sum(table, axis=0) > 0]
        values[name] = stats.chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0
    return values


def caught(values: dict[str, float]) -> set[str]:
    return {name for name, value in values.items() if value < FALSE_ALARM / len(values)}


@pytest.mark.statistical
def test_the_server_cannot_tell_which_of_two_inputs_a_site_had() -> None:
    assert caught(told_apart()) == set()


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> set[str]:
    """A broken site; gives the views in which it must be caught."""
    return TWINS[request.param](monkeypatch)


def only_with_a_key(total: Residues, key: bytes, **sign: bool) -> None:
    if key:
        add_mask(total, key, **sign)


def forgets_its_own_mask(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setattr(site, "self_key", lambda *_: b"")
    monkeypatch.setattr(site, "add_mask", only_with_a_key)
    return {"called dropped, without pair masks"}


def forgets_pair_masks(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setattr(site, "pair_key", lambda *_: b"")
    monkeypatch.setattr(site, "add_mask", only_with_a_key)
    return {"without its own mask", "between two sites"}


def reuses_its_masks(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    def same(*parts: object) -> bytes:
        return hashlib.sha256(repr(parts).encode()).digest()

    monkeypatch.setattr(site, "self_key", lambda seed, transcript, index: same(index))
    monkeypatch.setattr(site, "pair_key", lambda one, other, transcript, pair: same(sorted(pair)))
    return {"between two rounds"}


def masks_with_the_colluder_only(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    def with_the_colluder(private: bytes, public: bytes, transcript: bytes, pair: tuple) -> bytes:
        return pair_key(private, public, transcript, pair) if COLLUDER in pair else b""

    monkeypatch.setattr(site, "pair_key", with_the_colluder)
    monkeypatch.setattr(site, "add_mask", only_with_a_key)
    return {"without its own mask and a colluder's"}


def leaves_a_twentieth_bare(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    def most(total: Residues, key: bytes, *, subtract: bool = False) -> None:
        bare = total[::20].copy()
        add_mask(total, key, subtract=subtract)
        total[::20] = bare

    monkeypatch.setattr(site, "add_mask", most)
    return {"as it came"}


TWINS = {
    make.__name__: make
    for make in (
        forgets_its_own_mask,
        forgets_pair_masks,
        reuses_its_masks,
        masks_with_the_colluder_only,
        leaves_a_twentieth_bare,
    )
}


@pytest.mark.statistical
@pytest.mark.parametrize("twin", TWINS, indirect=True)
def test_a_broken_twin_is_caught_where_it_is_broken(twin: set[str]) -> None:
    # Its rounds end in garbage, which is not what is asked here.
    assert twin <= caught(told_apart())


def test_the_power_is_as_stated() -> None:
    share = 1 / 20
    spread = (1 - share) / BINS
    shift = LENGTH / 2 * 2 * share**2 / (spread + share / 2)
    critical = stats.chi2.isf(FALSE_ALARM / 6, BINS - 1)
    assert stats.ncx2.sf(critical, BINS - 1, shift) >= POWER


def test_a_coalition_learns_the_sum_of_the_honest_sites_and_its_pieces_stay_masked() -> None:
    """The colluder's own vector taken away, the sum is that of the three honest sites, exactly."""
    terms = terms_of(3)
    values = inputs(terms, 1, others=-5)
    seen = run(terms, values)
    honest = seen.total - values[f"site_{COLLUDER:03d}"]
    np.testing.assert_array_equal(honest, np.full(LENGTH, terms.bound - 10))


def test_t_minus_1_shares_of_a_round_open_no_secret() -> None:
    terms = terms_of(4)
    seen = run(terms, inputs(terms, 1))
    shares = [
        (index, one.share)
        for index in range(terms.threshold - 1)
        for one in RevealedShares.from_bytes(seen.up[f"site_{index:03d}", "unmask"], terms).shares
        if one.peer == 0
    ]
    assert len(shares) == terms.threshold - 1
    assert combine_shares(shares, terms.threshold, lambda secret: True) is None
    guess = combine_shares(shares, terms.threshold - 1, lambda secret: True)
    assert guess != secret_of(seen, 0, Secret.SEED)


def test_seeds_of_generators_reach_no_key() -> None:
    adverts = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        seen = run(terms_of(5), inputs(terms_of(5), 1), until="keys")
        adverts.append(seen.server.adverts[0])
    assert adverts[0].mask_key != adverts[1].mask_key
    assert adverts[0].seed_commitment != adverts[1].seed_commitment
