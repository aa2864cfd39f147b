"""Whether the server answers as the kit says: port, TLS, clock, registration."""

import socket
import ssl
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx
from cryptography import x509

from fedistill.errors import ProvisionError
from fedistill.provision.authority import days_left
from fedistill.provision.flower import Known, ask_registration
from fedistill.provision.preflight import Check, check_days, failed, warning, well, wrong
from fedistill.provision.site_folder import Membership, SiteFolder, load_supernode_key

_SECONDS = 10.0
# Flower refuses a SuperNode's timestamp from further ahead, or further behind, than this.
_AHEAD, _BEHIND = 5.0, 305.0
_ROUNDING = 1.0


def server_checks(folder: SiteFolder, membership: Membership, *, now: datetime) -> list[Check]:
    """All checks that need the server; the first one that fails ends them."""
    reached = check_port(membership)
    if reached.status != "ok":
        return [reached]
    secure, certificate = check_tls(folder, membership)
    if certificate is None:
        return [reached, secure]
    ends = check_days(
        "server's certificate ends", days_left(certificate, now), "a renewed server certificate"
    )
    clock = check_clock(folder, membership, now)
    return [reached, secure, ends, clock, check_registration(folder, membership)]


def check_port(membership: Membership) -> Check:
    """Somebody listens there."""
    try:
        where = (membership.server.host, membership.server.port)
        socket.create_connection(where, timeout=_SECONDS).close()
    except OSError as error:
        return wrong(
            "server's port",
            f"{membership.address} is not reached ({error.strerror or error})",
            "allow outgoing connections there, or ask the coordinator whether the server runs",
        )
    return well("server's port", f"{membership.address} is open")


def check_tls(folder: SiteFolder, membership: Membership) -> tuple[Check, x509.Certificate | None]:
    """The wire is encrypted, and the other end has a certificate that the project signed."""
    name = "TLS"
    host = membership.server.host
    try:
        context = ssl.create_default_context(cafile=str(folder.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        where = (host, membership.server.port)
        with (
            socket.create_connection(where, timeout=_SECONDS) as wire,
            context.wrap_socket(wire, server_hostname=host) as secure,
        ):
            found, der = secure.version(), secure.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return wrong(
            name,
            f"the server's certificate is refused: {error.verify_message}",
            "ask the coordinator; somebody may stand between, or the server needs provision renew",
        ), None
    except OSError as error:
        return wrong(
            name,
            f"{membership.address} speaks no TLS ({getattr(error, 'reason', None) or error})",
            "ask the coordinator to start fedistill provision front",
        ), None
    certificate = x509.load_der_x509_certificate(der or b"")
    return well(name, f"{found}, signed by the project, good for {host}"), certificate


def check_clock(folder: SiteFolder, membership: Membership, now: datetime) -> Check:
    """This clock and the server's agree as far as Flower's authentication needs."""
    name = "clock"
    try:
        context = ssl.create_default_context(cafile=str(folder.ca))
        answer = httpx.get(
            f"https://{membership.address}/", verify=context, timeout=_SECONDS, trust_env=False
        )
        ahead = (now - parsedate_to_datetime(answer.headers["date"])).total_seconds()
    except (httpx.HTTPError, OSError, KeyError, ValueError, TypeError) as error:
        return warning(
            name,
            f"the server's time is unknown ({type(error).__name__})",
            "compare this machine's clock with another's",
        )
    ahead -= _ROUNDING / 2  # the header has whole seconds
    if ahead > _AHEAD or ahead < -_BEHIND:
        return wrong(
            name,
            f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's",
            "set this machine's clock by NTP; Flower would refuse its SuperNode",
        )
    if abs(ahead) > _AHEAD:
        return warning(name, f"{-ahead:.0f} s behind the server's", "set the clock by NTP")
    return well(name, "agrees with the server's")


def check_registration(folder: SiteFolder, membership: Membership) -> Check:
    """The SuperLink knows this site's SuperNode key."""
    name = "registration"
    try:
        private = load_supernode_key(folder)
    except ProvisionError as error:
        return failed(name, error)
    known = ask_registration(membership.address, folder.ca, private)
    if known is Known.REGISTERED:
        return well(name, "the SuperLink knows this SuperNode's key")
    if known is Known.UNKNOWN:
        return wrong(
            name,
            "the SuperLink does not know this SuperNode's key, or it was revoked",
            "ask the coordinator to run fedistill provision register",
        )
    return wrong(
        name,
        "the SuperLink gave no answer that could be understood",
        "ask the coordinator whether SuperLink and fedistill provision front run",
    )
