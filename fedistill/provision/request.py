"""`request.json`: a site's public keys, signed by both of them, on its way to the coordinator.

The identity (Ed25519) signs the whole text, so whoever compares the identity's fingerprint has
compared the SuperNode key with it. The SuperNode key (EC P-384) signs it too: nobody can have
another's key registered as their own.
"""

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from fedistill.errors import ProvisionError
from fedistill.privacy.ledger_key import Signed, SiteKey, fingerprint, is_signed
from fedistill.provision.project import Name, in_words

FORMAT = "fedistill site request 1"
LARGEST = 16 << 10

Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$", max_length=512)]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SshKey = Annotated[str, StringConstraints(pattern=r"^ecdsa-sha2-nistp384 \S+$", max_length=512)]


class SiteRecord(BaseModel):
    """Who a site is: what a request says, and what a roster lists.

    Attributes:
        site: Its name.
        identity: Its Ed25519 public key, 32 bytes in hex.
        supernode: Its SuperNode's EC P-384 public key, as OpenSSH writes it, without a comment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    identity: PublicKey
    supernode: SshKey

    @property
    def fingerprint(self) -> str:
        """Of the identity, in hex."""
        return fingerprint(self.identity)


class Request(SiteRecord):
    """What `request.json` holds."""

    format: Literal["fedistill site request 1"]
    made: AwareDatetime
    signed_by_identity: Hex
    signed_by_supernode: Hex


def make_request(
    site: str, identity: SiteKey, supernode: ec.EllipticCurvePrivateKey, *, now: datetime
) -> bytes:
    """The file of a site, JSON with a line for each field."""
    record = SiteRecord(
        site=site, identity=identity.public, supernode=ssh_key(supernode.public_key())
    )
    made = now.astimezone(UTC)
    text = _signed_text(record, made)
    signature = supernode.sign(text.encode(), ec.ECDSA(hashes.SHA384())).hex()
    fields = {
        "format": FORMAT,
        **record.model_dump(),
        "made": made.isoformat(),
        "signed_by_identity": identity.sign(Signed.REQUEST, text),
        "signed_by_supernode": signature,
    }
    return (json.dumps(fields, indent=2) + "\n").encode()


def parse_request(content: bytes) -> Request:
    """A request whose signatures are right.

    Raises:
        ProvisionError: names the field that is wrong.
    """
    try:
        request = Request.model_validate_json(content)
    except ValidationError as error:
        raise ProvisionError(f"request: {in_words(error)}") from error
    text = _signed_text(request, request.made)
    if not is_signed(request.identity, Signed.REQUEST, text, request.signed_by_identity):
        raise _not_signed("signed_by_identity")
    try:
        parse_ssh_key(request.supernode).verify(
            bytes.fromhex(request.signed_by_supernode), text.encode(), ec.ECDSA(hashes.SHA384())
        )
    except InvalidSignature:
        raise _not_signed("signed_by_supernode") from None
    return request


def ssh_key(public: ec.EllipticCurvePublicKey) -> str:
    """As Flower reads it."""
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def parse_ssh_key(text: str) -> ec.EllipticCurvePublicKey:
    """A P-384 public key.

    Raises:
        ProvisionError: it is none.
    """
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key() from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise _no_key()
    return key


def _signed_text(record: SiteRecord, made: datetime) -> str:
    # From the parsed fields: two readers of one JSON text may see different values in it.
    values = (FORMAT, record.site, record.identity, record.supernode, made.isoformat())
    return "\n".join(values)


def _no_key() -> ProvisionError:
    return ProvisionError(
        "supernode must be an EC P-384 public key in OpenSSH's form: send the file that fedistill "
        "site init wrote"
    )


def _not_signed(field: str) -> ProvisionError:
    return ProvisionError(
        f"request: {field} is no signature of this text by the key that it names: it was changed "
        "on its way, ask the site to send it again"
    )
