"""The project's key, its certificate authority, and the server's certificate.

One EC P-384 key is the project's. It signs X.509 certificates, which are DER and begin with byte
0x30, and startup kits, which are signed as texts that begin with `fedistill startup kit`: no
signature of one is a signature of the other. Its fingerprint, SHA-256 of the DER
SubjectPublicKeyInfo, is all that a site has to compare, and a renewal of the certificates keeps it.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedistill.errors import ProvisionError

KIT = b"fedistill startup kit\n"
LOOPBACK = ("localhost", "127.0.0.1")
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Authority:
    """The project's private key and its own certificate."""

    private: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @cached_property
    def fingerprint(self) -> str:
        """Of the project."""
        return fingerprint_of(self.certificate)

    def sign_kit(self, manifest: bytes) -> bytes:
        """ECDSA over P-384 with SHA-384, DER."""
        return self.private.sign(KIT + manifest, ec.ECDSA(hashes.SHA384()))


def is_kit_signature(certificate: x509.Certificate, manifest: bytes, signature: bytes) -> bool:
    """Whether the key of the project's certificate signed this manifest."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, KIT + manifest, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-384 key from the operating system's CSPRNG."""
    return ec.generate_private_key(ec.SECP384R1())


def make_authority(
    private: ec.EllipticCurvePrivateKey, *, name: str, now: datetime, days: int
) -> Authority:
    """A certificate authority that can sign servers and no further authorities."""
    public = private.public_key()
    subject = _name(f"fedistill project {name}")
    certificate = (
        _builder(subject, subject, public, now=now, days=days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA384())
    )
    return Authority(private, certificate)


def make_server_certificate(
    authority: Authority,
    public: ec.EllipticCurvePublicKey,
    *,
    hosts: tuple[str, ...],
    now: datetime,
    days: int,
) -> x509.Certificate:
    """The server's certificate, good for `hosts` and for Flower's own talk on loopback."""
    names = tuple(dict.fromkeys((*hosts, *LOOPBACK)))
    issuer = authority.certificate
    key_identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(_name(hosts[0][:64]), issuer.subject, public, now=now, days=days)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier),
            critical=False,
        )
        .sign(authority.private, hashes.SHA384())
    )


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's public key (DER SubjectPublicKeyInfo) in hex."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Unencrypted PKCS 8: the mode of its file protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def parse_certificate(content: bytes, what: str) -> x509.Certificate:
    """A certificate in PEM whose key is on P-384.

    Raises:
        ProvisionError: it is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(content)
        key = certificate.public_key()
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        raise ProvisionError(f"{what} is no certificate in PEM: ask for it again") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise ProvisionError(f"{what} must have a key on P-384: it is none that fedistill made")
    return certificate


def parse_private_key(content: bytes, what: str) -> ec.EllipticCurvePrivateKey:
    """A P-384 key in PEM.

    Raises:
        ProvisionError: it is none.
    """
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ProvisionError(f"{what} is no key in PEM: restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp384r1":
        raise ProvisionError(f"{what} must be a key on P-384: restore it from a backup")
    return key


def check_issued_by(certificate: x509.Certificate, issuer: x509.Certificate, what: str) -> None:
    """Refuse a certificate that the authority did not sign.

    Raises:
        ProvisionError: its issuer is another, or the signature is not the issuer's.
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ProvisionError(
            f"{what} is not signed by the project's certificate authority: run fedistill "
            "provision renew"
        ) from error


def days_left(certificate: x509.Certificate, now: datetime) -> float:
    """Days until it expires; below 0 where it has."""
    return (certificate.not_valid_after_utc - now) / timedelta(days=1)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)  # sites whose clock is a little behind
        .not_valid_after(now + timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
