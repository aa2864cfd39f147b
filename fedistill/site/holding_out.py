"""Units that a site holds out: nothing is learned from them, and students are scored on them.

Units go by a secret keyed hash of their own (`mechanisms.shards`, PRIVACY rule 14): whether one is
held out depends on that unit and the key, so one that comes or goes leaves all others where they
are. The key follows from the site's signing key, which the operating system's generator made: the
same units are held out in every run, and nobody else can tell which.
"""

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedistill.data import LabelledRows
from fedistill.mechanisms.shards import deal_by_key

_PARTS = 1000
"""Units are dealt to so many parts, of which the first ones are held out."""

_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """A site's rows in two parts, each in the order of the whole. No unit is in both."""

    learned_from: LabelledRows
    held_out: LabelledRows


def hold_out(rows: LabelledRows, fraction: float, identity: Ed25519PrivateKey) -> HeldOut:
    """Hold out about `fraction` of the units, to a thousandth.

    Args:
        rows: As the policy's unit groups them.
        fraction: From 0 to 1; public.
        identity: The site's signing key.
    """
    key = HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"fedistill units held out").derive(
        identity.private_bytes_raw()
    )
    parts = deal_by_key(rows, _PARTS, key)
    cut = round(fraction * _PARTS)
    held = np.zeros(len(rows.rows), bool)
    for part in parts[:cut]:
        held[part] = True
    return HeldOut(
        learned_from=rows.take(np.flatnonzero(~held)), held_out=rows.take(np.flatnonzero(held))
    )
