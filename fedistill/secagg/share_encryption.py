"""Shares on their way from one site to another, through a server that must not read them.

ChaCha20-Poly1305 (RFC 8439) with a key of this pair, direction and round; the ciphertext is bound
to run, round, sender, receiver and all signed keys, so it decrypts nowhere else.
"""

import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedistill.secagg.keys import Derived, agree_key
from fedistill.secagg.messages import NONCE_BYTES, EncryptedShare, KeyAdvert
from fedistill.secagg.sharing import SECRET_BYTES
from fedistill.secagg.state import HeldShare, SiteState


def encrypt_share(state: SiteState, peer: KeyAdvert, plaintext: bytes) -> EncryptedShare:
    """A peer's two shares (64 bytes) for its eyes, with a fresh nonce."""
    key, bound_to = _share_key(state, peer, state.site, peer.sender)
    nonce = os.urandom(NONCE_BYTES)
    ciphertext = nonce + ChaCha20Poly1305(key).encrypt(nonce, plaintext, bound_to)
    return EncryptedShare(peer=peer.sender, ciphertext=ciphertext)


def decrypt_share(state: SiteState, peer: KeyAdvert, ciphertext: bytes) -> HeldShare | None:
    """The shares that a peer encrypted for this site, or None where they do not decrypt."""
    key, bound_to = _share_key(state, peer, peer.sender, state.site)
    nonce = ciphertext[:NONCE_BYTES]
    try:
        text = ChaCha20Poly1305(key).decrypt(nonce, ciphertext[NONCE_BYTES:], bound_to)
    except InvalidTag:
        return None
    return HeldShare(
        peer=peer.sender, seed=text[:SECRET_BYTES], mask_key=text[SECRET_BYTES : 2 * SECRET_BYTES]
    )


def _share_key(
    state: SiteState, peer: KeyAdvert, sender: int, receiver: int
) -> tuple[bytes, bytes]:
    """Key of the shares that one site sends to another, and what their ciphertext is bound to."""
    ends = struct.pack(">HH", sender, receiver)
    key = agree_key(state.share_key, peer.share_key, Derived.SHARE, state.transcript, ends)
    return key, state.terms.round_id + state.transcript + ends
