"""What a ledger stores of an answer, and whether it is what the site stored."""

import hashlib
from dataclasses import dataclass

from fedistill.privacy.charge import Charge
from fedistill.privacy.ledger_key import Signed, SiteKey, is_signed


@dataclass(frozen=True, kw_only=True)
class StoredRelease:
    """A noised answer that was paid for: it can be given again at no cost.

    Attributes:
        charge: What it cost.
        release: The release as `Ledger.store` got it.
        teacher: The noised teacher behind it, to label further public rows as post-processing.
    """

    charge: Charge
    release: bytes
    teacher: bytes


def release_digest(release: bytes, teacher: bytes) -> str:
    """Sha256 (hex) over the release, its length first, and the teacher."""
    return hashlib.sha256(len(release).to_bytes(8) + release + teacher).hexdigest()


def sign_release(key: SiteKey, charge_hash: str, digest: str) -> str:
    """Signature (hex) of the release with `digest` as the answer to the charge with that hash."""
    return key.sign(Signed.RELEASE, f"{charge_hash}\n{digest}")


def is_release_sound(
    public_key: str,
    charge_hash: str,
    *,
    release: bytes,
    teacher: bytes,
    sha256: str,
    signature: str,
) -> bool:
    """Whether a stored release is the one that the site stored for the charge with that hash."""
    return release_digest(release, teacher) == sha256 and is_signed(
        public_key, Signed.RELEASE, f"{charge_hash}\n{sha256}", signature
    )
