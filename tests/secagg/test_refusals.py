"""What a site refuses, whatever a server says. Each test names the privacy rule that it holds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedistill import secagg
from fedistill.errors import MessageRefused, SecAggError, TermsRefused, TooFewSurvivors
from fedistill.secagg.keys import Signed, sign
from fedistill.secagg.messages import Secret
from tests.secagg.rounds import Recorded, identities, make_terms, pins, run, some_integers

SITE = "site_000"
TERMS = make_terms(3)
INTEGERS = some_integers(TERMS)


@pytest.fixture(scope="module")
def at() -> Callable[[str], Recorded]:
    """A round of three sites that stopped after a stage; every call gives a copy."""
    done = {stage: run(TERMS, INTEGERS, until=stage) for stage in ("keys", "shares", "labels")}
    done["agree"] = run(TERMS, INTEGERS, until="agree", start=done["labels"])
    return lambda stage: done[stage].copy()


def test_rule_17_a_site_that_is_not_pinned_is_refused(at) -> None:
    trusted = {name: key for name, key in pins(TERMS).items() if name != "site_002"}
    seen = at("keys")
    with pytest.raises(MessageRefused, match="site_002 is in the roster and not pinned"):
        secagg.share(seen.states[SITE], seen.server.adverts, trusted)


def test_rule_17_a_site_with_another_key_than_the_pinned_one_is_refused(at) -> None:
    seen = at("keys")
    with pytest.raises(MessageRefused, match="site_001 has another key"):
        secagg.share(seen.states[SITE], seen.server.adverts, pins(TERMS) | {"site_001": b"0" * 32})


def test_rule_17_a_site_does_not_answer_under_a_key_that_is_not_its_own() -> None:
    with pytest.raises(TermsRefused, match="another key than its own"):
        secagg.advertise(TERMS, SITE, Ed25519PrivateKey.generate())
    with pytest.raises(TermsRefused, match="must be in the roster"):
        secagg.advertise(TERMS, "site_9", identities(1)[SITE])


@pytest.mark.parametrize("field", ["mask_key", "share_key", "seed_commitment", "signature"])
def test_rule_17_swapped_keys_are_refused(at, field: str) -> None:
    seen = at("keys")
    first, second, third = seen.server.adverts
    swapped = replace(second, **{field: getattr(third, field)})
    with pytest.raises(MessageRefused, match="site_001 are not signed"):
        secagg.share(seen.states[SITE], (first, swapped, third), pins(TERMS))


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"},
        {"round": 2},
        {"config_sha256": "c" * 64},
        {"proxy_sha256": "c" * 64},
        {"grid": 2.0**-11},
        {"length": 6},
        {"bound": 7},
        {"threshold": 3},
        {"colluding": 1, "threshold": 3},
        {"min_honest": 3},
        {"identities": make_terms(4).identities[1:]},
    ],
)
def test_rule_17_keys_signed_over_other_terms_are_refused(at, changes) -> None:
    """Each term by itself: run, round, roster, config, proxy set, grid, bounds and thresholds."""
    other = make_terms(3, **changes)
    assert other.round_id != TERMS.round_id
    key = Ed25519PrivateKey.from_private_bytes(identities(4)["site_001"].private_bytes_raw())
    _, advert = secagg.advertise(other, "site_001", key)
    seen = at("keys")
    first, _, third = seen.server.adverts
    replayed = replace(advert, round_id=TERMS.round_id, sender=1)
    for wrong, why in ((replace(advert, sender=1), "another run or round"), (replayed, "signed")):
        with pytest.raises(MessageRefused, match=why):
            secagg.share(seen.states[SITE], (first, wrong, third), pins(TERMS))


def test_rule_15_keys_and_masks_of_two_rounds_have_nothing_in_common() -> None:
    first, second = (
        run(make_terms(3, round=number), INTEGERS, until="labels") for number in (1, 2)
    )
    for one, other in zip(first.server.adverts, second.server.adverts, strict=True):
        assert one.mask_key != other.mask_key
        assert one.share_key != other.share_key
        assert one.seed_commitment != other.seed_commitment
    assert first.up[SITE, "labels"][-20:] != second.up[SITE, "labels"][-20:]


def test_repeated_missing_or_disordered_keys_are_refused(at) -> None:
    seen = at("keys")
    first, second, third = seen.server.adverts
    state = seen.states[SITE]
    with pytest.raises(MessageRefused, match="each once"):
        secagg.share(state, (first, second, second), pins(TERMS))
    with pytest.raises(MessageRefused, match="in the roster's order"):
        secagg.share(state, (second, first, third), pins(TERMS))
    with pytest.raises(MessageRefused, match="site_000 itself must be among"):
        secagg.share(state, (second, third), pins(TERMS))


def test_an_older_advert_of_the_site_itself_is_refused(at) -> None:
    seen = at("keys")
    _, older = secagg.advertise(TERMS, SITE, identities(1)[SITE])
    with pytest.raises(MessageRefused, match="not those that it sent"):
        secagg.share(seen.states[SITE], (older, *seen.server.adverts[1:]), pins(TERMS))


def test_keys_of_low_order_are_refused_by_sites_and_server(at) -> None:
    seen = at("keys")
    key = identities(2)["site_001"]
    weak = replace(seen.server.adverts[1], mask_key=bytes(32))
    raw = key.private_bytes_raw()
    weak = replace(weak, signature=sign(raw, Signed.KEYS, TERMS.round_id, weak.signed_parts))
    adverts = (seen.server.adverts[0], weak, seen.server.adverts[2])
    with pytest.raises(MessageRefused, match="low order"):
        secagg.share(seen.states[SITE], adverts, pins(TERMS))
    replies = {TERMS.name_of(one.sender): one.to_bytes() for one in adverts}
    server = secagg.collect_adverts(TERMS, replies)
    assert server.names([one.sender for one in server.adverts]) == ("site_000", "site_002")
    assert "low order" in dict(server.refused)["site_001"]


def test_rule_16_too_few_keys_shares_or_survivors_are_refused(at) -> None:
    seen = at("keys")
    with pytest.raises(TooFewSurvivors, match="1 of 3 sent keys, at least 2 must"):
        secagg.share(seen.states[SITE], seen.server.adverts[:1], pins(TERMS))
    seen = at("shares")
    alone = replace(seen.deliveries[SITE], sharers=(0,), shares=())
    with pytest.raises(TooFewSurvivors, match="1 of 3 sent shares"):
        secagg.mask(seen.states[SITE], alone, INTEGERS[SITE])
    seen = at("labels")
    with pytest.raises(TooFewSurvivors, match="1 of 3 survived"):
        secagg.agree(seen.states[SITE], seen.server.participations[:1])


def test_rule_16_min_honest_counts_besides_the_colluders() -> None:
    terms = make_terms(5, colluding=1, min_honest=4)
    assert (terms.threshold, terms.survivors_at_least) == (4, 5)
    integers = some_integers(terms)
    with pytest.raises(TooFewSurvivors, match="at least 5 must"):
        run(terms, integers, {"site_004": "labels"})


def test_rule_16_two_survivor_sets_in_one_round_are_refused(at) -> None:
    seen = at("labels")
    words = seen.server.participations
    state, signature = secagg.agree(seen.states[SITE], words)
    with pytest.raises(MessageRefused, match="signed another set"):
        secagg.agree(state, words[:2])
    assert secagg.agree(state, words)[1] == signature


def test_survivors_without_the_site_itself_are_refused(at) -> None:
    seen = at("labels")
    with pytest.raises(MessageRefused, match="must include site_000"):
        secagg.agree(seen.states[SITE], seen.server.participations[1:])


def test_survivors_that_masked_among_other_sites_are_refused(at) -> None:
    """On a ring a server that hides shares could otherwise cut a site off from its peers."""
    seen = at("shares")
    third = seen.deliveries["site_002"]
    cut = replace(third, sharers=(1, 2), shares=third.shares[1:])
    _, vector = secagg.mask(seen.states["site_002"], cut, INTEGERS["site_002"])
    seen = run(TERMS, INTEGERS, until="labels", start=seen)
    words = (*seen.server.participations[:2], vector.participation)
    with pytest.raises(MessageRefused, match="participation of site_002 is not signed"):
        secagg.agree(seen.states[SITE], words)


def test_rule_16_fewer_than_t_signatures_reveal_nothing(at) -> None:
    seen = at("agree")
    with pytest.raises(TooFewSurvivors, match="1 of 3 signed the survivors, t = 2 must"):
        secagg.reveal(seen.states[SITE], seen.server.signatures[:1])


def test_a_failed_signature_of_the_survivors_is_refused(at) -> None:
    seen = at("agree")
    first, second, third = seen.server.signatures
    forged = replace(second, signature=third.signature)
    with pytest.raises(MessageRefused, match="survivors of site_001 is not signed"):
        secagg.reveal(seen.states[SITE], (first, forged, third))
    with pytest.raises(MessageRefused, match="each once"):
        secagg.reveal(seen.states[SITE], (first, first))


def test_rule_15_signatures_over_another_set_open_nothing(at) -> None:
    """Two sites are shown all three as survivors, the third only two: it reveals to neither."""
    seen = at("labels")
    words = seen.server.participations
    state, _ = secagg.agree(seen.states[SITE], words[:2])
    others = [secagg.agree(seen.states[site], words)[1] for site in ("site_001", "site_002")]
    with pytest.raises(MessageRefused):
        secagg.reveal(state, others)
    with pytest.raises(MessageRefused, match="is not signed as it must be"):
        secagg.reveal(state, others[:1])


def test_rule_15_never_both_kinds_of_share_for_one_peer_and_only_once(at) -> None:
    seen = at("labels")
    words = seen.server.participations[:2]
    states = {site: secagg.agree(seen.states[site], words) for site in (SITE, "site_001")}
    signatures = [signature for _, signature in states.values()]
    state, message = secagg.reveal(states[SITE][0], signatures)
    kinds = [one.secret for one in message.shares]
    assert kinds == [Secret.SEED, Secret.SEED, Secret.MASK_KEY]
    with pytest.raises(MessageRefused, match="did unmask last"):
        secagg.reveal(state, signatures)
    with pytest.raises(MessageRefused, match="did unmask last"):
        secagg.agree(state, seen.server.participations)
    assert state.held == ()


def test_secrets_are_forgotten_once_they_were_used_and_never_shown(at) -> None:
    seen = at("labels")
    state = seen.states[SITE]
    assert state.mask_key == state.share_key == state.seed == b""
    before = at("shares").states[SITE]
    text = repr(before)
    for secret in (before.identity, before.mask_key, before.seed, before.held[0].seed):
        assert secret.hex() not in text
        assert repr(secret) not in text


def test_every_step_is_refused_when_early_late_or_repeated(at) -> None:
    keys, shares, labels, agreed = (at(stage) for stage in ("keys", "shares", "labels", "agree"))
    steps = [
        lambda state: secagg.share(state, keys.server.adverts, pins(TERMS)),
        lambda state: secagg.mask(state, shares.deliveries[SITE], INTEGERS[SITE]),
        lambda state: secagg.agree(state, labels.server.participations),
        lambda state: secagg.reveal(state, agreed.server.signatures),
    ]
    for number, seen in enumerate((keys, shares, labels, agreed)):
        for other, step in enumerate(steps):
            if other == number or (number, other) == (3, 2):  # the same set again is no harm
                continue
            with pytest.raises(MessageRefused, match="early, late or repeated"):
                step(seen.states[SITE])


def test_a_delivery_for_another_site_or_without_a_peers_share_is_refused(at) -> None:
    seen = at("shares")
    state, delivery = seen.states[SITE], seen.deliveries[SITE]
    for wrong, why in (
        (seen.deliveries["site_001"], "not for site_000"),
        (replace(delivery, round_id=bytes(32)), "another round"),
        (replace(delivery, shares=delivery.shares[:1]), "must come from"),
        (replace(delivery, sharers=(0, 1)), "must come from"),
        (replace(delivery, sharers=(1, 2)), "must include site_000"),
        (replace(delivery, sharers=(0, 1, 9)), "must be among"),
    ):
        with pytest.raises(MessageRefused, match=why):
            secagg.mask(state, wrong, INTEGERS[SITE])


@pytest.mark.parametrize(
    ("integers", "why"),
    [
        (np.zeros(4, np.int64), r"must be int64\(5,\)"),
        (np.zeros(5, np.int32), r"must be int64"),
        (np.full(5, TERMS.bound + 1), "clamp"),
        (np.full(5, -TERMS.bound - 1), "clamp"),
        (np.full(5, np.iinfo(np.int64).min), "clamp"),
    ],
)
def test_integers_beyond_the_terms_are_refused_before_anything_is_sent(at, integers, why) -> None:
    seen = at("shares")
    with pytest.raises(ValueError, match=why):
        secagg.mask(seen.states[SITE], seen.deliveries[SITE], integers)


def test_the_server_counts_who_answers_for_another_as_dropped() -> None:
    stolen = {}

    def tamper(site: str, stage: str, data: bytes) -> bytes:
        stolen.setdefault(stage, data)
        return stolen[stage] if (site, stage) == ("site_001", "labels") else data

    seen = run(TERMS, INTEGERS, tamper=tamper)
    np.testing.assert_array_equal(seen.total, INTEGERS["site_000"] + INTEGERS["site_002"])
    assert dict(seen.server.refused) == {"site_001": "site_001 answered for site_000"}


def test_all_errors_are_of_one_family() -> None:
    for error in (TermsRefused, MessageRefused, TooFewSurvivors):
        assert issubclass(error, SecAggError)
        assert error.public_class == "no-answer"
    assert TermsRefused.exit_code == 2
