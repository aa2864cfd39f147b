"""Masks against another library, and shares against another field arithmetic."""

import hashlib
import hmac

import numpy as np
import pytest
from Crypto.Cipher import AES
from Crypto.Protocol.DH import import_x25519_public_key, key_agreement
from Crypto.Protocol.SecretSharing import Shamir
from Crypto.PublicKey import ECC
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.secagg.keys import fresh_private_key, public_of
from fedistill.secagg.masks import add_mask, pair_key, self_key, to_integers, to_residues
from fedistill.secagg.messages import MaskedVector
from fedistill.secagg.sharing import combine_shares, split_secret
from fedistill.secagg.transcript import transcript_of
from tests.secagg.rounds import make_terms, run, some_integers

secrets = st.binary(min_size=32, max_size=32)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for one block, from Python's own HMAC."""
    extracted = hmac.digest(salt, secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\1", hashlib.sha256)


def stream(key: bytes, length: int) -> np.ndarray:
    """AES-256-CTR by pycryptodome, as residues."""
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=bytes(16))
    return np.frombuffer(cipher.encrypt(bytes(4 * length)), "<u4").astype(np.uint32)


@pytest.mark.parametrize("length", [1, 3, 4, 1000, 2**16, 2**16 + 1, 150_001])
def test_a_mask_is_the_stream_of_another_library(length: int) -> None:
    key, total = b"k" * 32, np.arange(length, dtype=np.uint32)
    add_mask(total, key)
    np.testing.assert_array_equal(total, np.arange(length, dtype=np.uint32) + stream(key, length))
    add_mask(total, key, subtract=True)
    np.testing.assert_array_equal(total, np.arange(length, dtype=np.uint32))


def test_a_masked_vector_is_what_another_library_computes() -> None:
    terms = make_terms(3)
    integers = some_integers(terms)
    before = run(terms, integers, until="shares")
    after = run(terms, integers, until="labels", start=before)
    transcript = transcript_of(terms, before.server.adverts)
    state = before.states["site_001"]
    expected = integers["site_001"].astype(np.uint32)
    own = hkdf(state.seed, transcript, b"fedistill secagg 1 self mask\0" + bytes([0, 1]))
    expected += stream(own, terms.length)
    for peer, sign in ((0, -1), (2, 1)):
        secret = key_agreement(
            static_priv=ECC.construct(curve="Curve25519", seed=state.mask_key),
            static_pub=import_x25519_public_key(before.server.adverts[peer].mask_key),
            kdf=lambda shared: shared,
        )
        pair = bytes([0, min(1, peer), 0, max(1, peer)])
        key = hkdf(secret, transcript, b"fedistill secagg 1 pair mask\0" + pair)
        expected += np.uint32(sign % 2**32) * stream(key, terms.length)
    vector = MaskedVector.from_bytes(after.up["site_001", "labels"], terms)
    np.testing.assert_array_equal(vector.residues, expected)


def test_two_sites_agree_on_a_key_that_depends_on_pair_and_transcript() -> None:
    one, other = fresh_private_key(), fresh_private_key()
    key = pair_key(one, public_of(other), b"t", (0, 1))
    assert key == pair_key(other, public_of(one), b"t", (1, 0))
    assert key != pair_key(one, public_of(other), b"u", (0, 1))
    assert key != pair_key(one, public_of(other), b"t", (0, 2))
    assert self_key(b"s" * 32, b"t", 0) != self_key(b"s" * 32, b"t", 1)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_integers_survive_their_residues(values: list[int]) -> None:
    integers = np.array(values, np.int64)
    np.testing.assert_array_equal(to_residues(integers), [value % 2**32 for value in values])
    np.testing.assert_array_equal(to_integers(to_residues(integers)), integers)


@given(
    secret=secrets,
    sizes=st.integers(2, 9).flatmap(lambda n: st.tuples(st.integers(2, n), st.just(n))),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_any_t_shares_give_the_secret(secret: bytes, sizes: tuple[int, int], data) -> None:
    threshold, holders = sizes
    shares = list(enumerate(split_secret(secret, threshold, holders)))
    chosen = data.draw(st.permutations(shares))[:threshold]
    assert combine_shares(chosen, threshold, lambda found: found == secret) == secret
    assert combine_shares(chosen[1:], threshold, lambda found: True) is None


def times(a: int, b: int) -> int:
    """Product in GF(2^128) modulo 1 + x + x^2 + x^7 + x^128, as in a textbook."""
    product = 0
    for bit in range(128):
        product ^= (a << bit) * (b >> bit & 1)
    for bit in range(255, 127, -1):
        product ^= (0x87 | 1 << 128) << bit - 128 if product >> bit & 1 else 0
    return product


def through(points: list[tuple[int, int]], at: int) -> int:
    """The polynomial through `points`, at another place."""
    value = 0
    for x, y in points:
        for other, _ in points:
            if other != x:
                y = times(times(y, at ^ other), inverse(x ^ other))
        value ^= y
    return value


def inverse(a: int) -> int:
    """a^(2^128 - 2)."""
    result = 1
    for _ in range(127):
        a = times(a, a)
        result = times(result, a)
    return result


@given(secret=secrets, candidate=st.binary(min_size=16, max_size=16))
@settings(max_examples=10, deadline=None)
def test_t_minus_1_shares_are_consistent_with_every_secret(secret: bytes, candidate: bytes) -> None:
    """For any other secret there is a t-th share that gives it: t - 1 of them say nothing."""
    threshold = 3
    shares = split_secret(secret, threshold, 5)
    known = [(place + 1, shares[place][:16]) for place in (0, 3)]
    points = [(x, int.from_bytes(share, "big")) for x, share in known]
    missing = through([(0, int.from_bytes(candidate, "big")), *points], 5)
    forged = [*known, (5, missing.to_bytes(16, "big"))]
    assert Shamir.combine(forged, False) == candidate
