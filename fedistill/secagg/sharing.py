"""Shamir shares of 32-byte secrets: any t of them give the secret, fewer give nothing.

`pycryptodome` shares 16 bytes over GF(2^128); a secret is two halves, shared one by one with fresh
coefficients from the operating system's CSPRNG. A share is the pair of points of one holder, and
holders have places 0, 1, ... in their group.
"""

from collections.abc import Callable, Sequence

from Crypto.Protocol.SecretSharing import Shamir

SECRET_BYTES = 32
_HALF = 16


def split_secret(secret: bytes, threshold: int, holders: int) -> tuple[bytes, ...]:
    """A 32-byte share for each of `holders`; any `threshold` of them give `secret`."""
    halves = [
        Shamir.split(threshold, holders, secret[start : start + _HALF], False)
        for start in range(0, SECRET_BYTES, _HALF)
    ]
    return tuple(left + right for (_, left), (_, right) in zip(*halves, strict=True))


def combine_shares(
    shares: Sequence[tuple[int, bytes]], threshold: int, is_right: Callable[[bytes], bool]
) -> bytes | None:
    """The secret that `is_right` of `threshold` shares, or None.

    Args:
        shares: (place of the holder, share), each holder once.
        threshold: How many shares make the secret.
        is_right: Whether a secret is the one that was shared, by its public key or commitment.

    Runs of `threshold` neighbours are tried, as many as there are shares: one wrong share does no
    harm where one is to spare.
    """
    if len(shares) < threshold:
        return None
    for start in range(len(shares)):
        chosen = [shares[(start + step) % len(shares)] for step in range(threshold)]
        secret = b"".join(
            Shamir.combine(
                [(place + 1, share[half : half + _HALF]) for place, share in chosen], False
            )
            for half in range(0, SECRET_BYTES, _HALF)
        )
        if is_right(secret):
            return secret
        if len(shares) == threshold:
            break
    return None
