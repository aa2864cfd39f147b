"""Messages: fixed lengths, strict parsers, and no bit that changes a sum unnoticed."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedistill import secagg
from fedistill.errors import MessageRefused, SecAggError, TermsRefused, TooFewSurvivors
from fedistill.secagg.messages import Secret
from tests.secagg.rounds import STAGES, Recorded, make_terms, run, some_integers

TERMS = make_terms(4)
INTEGERS = some_integers(TERMS)
SITE = "site_001"
KINDS = {
    "keys": secagg.KeyAdvert,
    "shares": secagg.ShareBundle,
    "labels": secagg.MaskedVector,
    "agree": secagg.SurvivorSignature,
    "unmask": secagg.RevealedShares,
}


@cache
def before(stage: str) -> Recorded | None:
    """The round up to the stage before, once for all examples."""
    number = STAGES.index(stage)
    return run(TERMS, INTEGERS, until=STAGES[number - 1]) if number else None


@cache
def done() -> Recorded:
    return run(TERMS, INTEGERS)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


changes = st.one_of(
    st.integers(0, 10**6).map(lambda bit: lambda data: flip(data, bit)),
    st.integers(1, 400).map(lambda cut: lambda data: data[: max(len(data) - cut, 0)]),
    st.binary(min_size=1, max_size=70).map(lambda more: lambda data: data + more),
    st.binary(max_size=200).map(lambda other: lambda data: other),
)


def no_tampering_changes_a_sum(stage: str, change: Callable[[bytes], bytes]) -> None:
    def tamper(site: str, at: str, data: bytes) -> bytes:
        return change(data) if (site, at) == (SITE, stage) else data

    total = run(TERMS, INTEGERS, tamper=tamper, start=before(stage)).total
    everyone = sum(INTEGERS.values())
    assert any(np.array_equal(total, right) for right in (everyone, everyone - INTEGERS[SITE]))


def a_parser_takes_its_own_bytes_and_no_others(
    stage: str, change: Callable[[bytes], bytes]
) -> None:
    data, kind = done().up[SITE, stage], KINDS[stage]
    assert kind.from_bytes(data, TERMS).to_bytes() == data
    changed = change(data)
    try:
        parsed = kind.from_bytes(changed, TERMS)
    except SecAggError:
        return
    assert parsed.to_bytes() == changed


quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
for_tests = given(stage=st.sampled_from(STAGES), change=changes)
many = settings(quick, max_examples=300)

test_no_tampering_changes_a_sum = quick(for_tests(no_tampering_changes_a_sum))
test_a_parser_takes_its_own_bytes_and_no_others = many(
    for_tests(a_parser_takes_its_own_bytes_and_no_others)
)
test_no_tampering_changes_a_sum_in_10_000_tries = pytest.mark.slow(
    thorough(for_tests(no_tampering_changes_a_sum))
)
test_a_parser_takes_no_other_bytes_in_10_000_tries = pytest.mark.slow(
    thorough(for_tests(a_parser_takes_its_own_bytes_and_no_others))
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_of_another_round_run_kind_or_version_is_refused(stage: str) -> None:
    data = done().up[SITE, stage]
    for other in (make_terms(4, round=2), make_terms(4, run="other")):
        with pytest.raises(MessageRefused, match="of another run or round"):
            KINDS[stage].from_bytes(data, other)
    with pytest.raises(MessageRefused, match="version=2 must be 1"):
        KINDS[stage].from_bytes(b"\2" + data[1:], TERMS)
    with pytest.raises(MessageRefused, match="kind=9 must be"):
        KINDS[stage].from_bytes(data[:1] + b"\x09" + data[2:], TERMS)
    with pytest.raises(MessageRefused, match="sender=65535 must be below 4"):
        KINDS[stage].from_bytes(data[:34] + b"\xff\xff" + data[36:], TERMS)
    with pytest.raises(MessageRefused, match="truncated"):
        KINDS[stage].from_bytes(data[:35], TERMS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_of_an_earlier_round_counts_as_none(stage: str) -> None:
    earlier = run(make_terms(4, round=0), INTEGERS).up[SITE, stage]

    def replay(site: str, at: str, data: bytes) -> bytes:
        return earlier if (site, at) == (SITE, stage) else data

    seen = run(TERMS, INTEGERS, tamper=replay, start=before(stage))
    without = sum(INTEGERS.values()) - INTEGERS[SITE]
    late = stage in ("agree", "unmask")
    np.testing.assert_array_equal(seen.total, without + INTEGERS[SITE] * late)


def test_lengths_depend_on_public_sizes_alone() -> None:
    one = run(TERMS, INTEGERS)
    zeros = {site: np.zeros(TERMS.length, np.int64) for site in INTEGERS}
    other = run(TERMS, zeros)
    assert {key: len(data) for key, data in one.up.items()} == {
        key: len(data) for key, data in other.up.items()
    }


def test_a_vector_takes_four_bytes_a_value_and_132_more() -> None:
    terms = make_terms(3, length=1000)
    data = run(terms, some_integers(terms), until="labels").up["site_000", "labels"]
    assert len(data) == 4 * 1000 + 132


def test_what_the_server_hands_out_survives_its_encoding() -> None:
    seen = run(TERMS, INTEGERS, until="labels")
    delivery = seen.deliveries[SITE]
    data = delivery.to_bytes(TERMS)
    assert secagg.ShareDelivery.from_bytes(data, TERMS) == delivery
    word = seen.server.participations[1]
    assert secagg.Participation.from_bytes(word.to_bytes(), TERMS) == word
    for wrong in (data[:-1], data + b"0", data[:36], data[:36] + b"\xff" + data[37:]):
        with pytest.raises(MessageRefused):
            secagg.ShareDelivery.from_bytes(wrong, TERMS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_state_survives_its_encoding_at_every_stage(stage: str) -> None:
    state = run(TERMS, INTEGERS, until=stage).states[SITE]
    assert secagg.SiteState.from_bytes(state.to_bytes()) == state


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"1", b'{"terms": 1}'])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises((MessageRefused, TermsRefused)):
        secagg.SiteState.from_bytes(data)


def test_terms_survive_their_text_and_other_text_is_refused() -> None:
    terms = make_terms(3, grid=0.1)
    assert secagg.RoundTerms.from_text(terms.to_text()) == terms
    for text in ("", "[]", "{}", terms.to_text().replace("4294967296", "2")):
        with pytest.raises(TermsRefused):
            secagg.RoundTerms.from_text(text)


def test_a_wrong_share_is_noticed_and_does_no_harm_where_one_is_to_spare() -> None:
    def lie(site: str, stage: str, data: bytes) -> bytes:
        wrong = stage == "unmask" and site in liars
        return flip(data, 8 * (len(data) - 1) + liars.index(site)) if wrong else data

    liars: tuple[str, ...] = (SITE,)
    np.testing.assert_array_equal(run(TERMS, INTEGERS, tamper=lie).total, sum(INTEGERS.values()))
    liars = tuple(INTEGERS)[:2]
    with pytest.raises(TooFewSurvivors, match="right ones must"):
        run(TERMS, INTEGERS, tamper=lie)


def test_a_share_that_does_not_decrypt_is_not_held_and_the_round_goes_on() -> None:
    seen = run(TERMS, INTEGERS, until="shares")
    tampered = seen.deliveries[SITE].to_bytes(TERMS)
    tampered = flip(tampered, 8 * (len(tampered) - 1))
    seen.deliveries[SITE] = secagg.ShareDelivery.from_bytes(tampered, TERMS)
    seen = run(TERMS, INTEGERS, start=seen)
    np.testing.assert_array_equal(seen.total, sum(INTEGERS.values()))
    shares = secagg.RevealedShares.from_bytes(seen.up[SITE, "unmask"], TERMS).shares
    assert [one.secret for one in shares] == [Secret.SEED] * 3 + [Secret.NEITHER]
