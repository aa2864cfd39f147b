"""Fingerprints as people read them to each other: sixteen groups of four hex digits."""

import re

from fedistill.errors import ProvisionError

_GROUP = 4


def grouped(fingerprint: str) -> str:
    """64 hex digits in groups of four, parted by hyphens, so that a shell needs no quotes."""
    groups = (fingerprint[i : i + _GROUP] for i in range(0, len(fingerprint), _GROUP))
    return "-".join(groups)


def parse(text: str, field: str) -> str:
    """A fingerprint as it was typed or pasted, in 64 lower-case hex digits.

    Args:
        text: Whatever the case, the spaces, the hyphens and the colons.
        field: Where it stands, for the message.

    Raises:
        ProvisionError: it is not whole: comparing a part of one is what an attacker hopes for.
    """
    digits = re.sub(r"[\s:-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ProvisionError(
            f"{field}={text[:80]!r} must be 64 hex digits, with or without hyphens: copy all "
            "sixteen groups"
        )
    return digits


def check(given: str, expected: str, field: str, whose: str) -> None:
    """Refuse a fingerprint that was typed when it is not the one that was found.

    Raises:
        ProvisionError: they differ, or the one typed is none.
    """
    if parse(given, field) != expected:
        raise ProvisionError(
            f"{field}={given} must be the fingerprint of {whose}, which is {grouped(expected)}: "
            "do not go on; ask its owner by telephone which of the two is right"
        )
