"""What the coordinator does: init, sign, revoke, renew. Registering with Flower is apart."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedistill.errors import LedgerError, ProvisionError
from fedistill.privacy.countersign import SERVER_KEY, SHA256
from fedistill.privacy.ledger_disk import locked_directory
from fedistill.privacy.ledger_key import create_key, load_key
from fedistill.provision import files
from fedistill.provision.authority import (
    Authority,
    fingerprint_of,
    make_authority,
    make_server_certificate,
    new_key,
    parse_certificate,
    parse_private_key,
    pem,
    private_pem,
)
from fedistill.provision.kit import Server, make_kit
from fedistill.provision.project import Project, Workshop, address
from fedistill.provision.registry import Registry, sign_request
from fedistill.provision.request import LARGEST, Request, parse_request

CONNECTION = "fedistill"
_LARGEST_PEM = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an order changed.

    Attributes:
        fingerprint: The project's.
        registry: As it is now.
        kits: By site that takes part, to be sent.
    """

    fingerprint: str
    registry: Registry
    kits: dict[str, Path]


def init(workshop: Workshop, *, now: datetime) -> Made:
    """Make the project's key, its certificate authority, and the server's keys and certificate.

    Raises:
        ProvisionError: the project file is wrong, or one of the files is there already.
    """
    project = Project.load(workshop.project_file)
    made = (
        *(workshop.project_key, workshop.ca, workshop.server_key, workshop.server_certificate),
        *(workshop.registry, workshop.countersign_public_key),
    )
    there = [path for path in made if path.exists()]
    if there:
        raise ProvisionError(
            f"{there[0]} is there already, and sites may trust what was made with it: run "
            "fedistill provision renew for new certificates, use another folder for another "
            "project, or delete it if nobody got a fingerprint yet"
        )
    private = new_key()
    files.write(workshop.project_key, private_pem(private), mode=files.PRIVATE)
    authority = _certify(workshop, project, private, now)
    _make_countersign_key(workshop)
    registry = Registry()
    registry.save(workshop.registry)
    return Made(fingerprint=authority.fingerprint, registry=registry, kits={})


def read_request(path: Path) -> Request:
    """A request whose signatures are right; whose it is, people say, by its fingerprint.

    Raises:
        ProvisionError: it is none, or was changed.
    """
    return parse_request(files.read(path, "request", at_most=LARGEST))


def sign(workshop: Workshop, request: Request, *, now: datetime, replace: bool = False) -> Made:
    """Take a site in, and write new kits for all that take part.

    Raises:
        ProvisionError: see `fedistill.provision.registry.sign_request`.
    """
    project = Project.load(workshop.project_file)

    def change(registry: Registry) -> Registry:
        return sign_request(
            registry,
            request,
            allowed=project.sites,
            now=now,
            expires=now + timedelta(days=project.validity_days),
            replace=replace,
        )

    return _change(workshop, change, now=now)


def revoke(workshop: Workshop, site: str, *, now: datetime) -> Made:
    """Take a site out, and write new kits for those that stay. Its own kit is deleted.

    Raises:
        ProvisionError: it was never signed, or is revoked already.
    """

    def change(registry: Registry) -> Registry:
        registration = registry.get(site)
        if registration.revoked is not None:
            raise ProvisionError(
                f"SITE={site!r} was revoked on {registration.revoked:%Y-%m-%d} already: run "
                "fedistill provision register if the SuperLink still has it"
            )
        return registry.with_site(registration.model_copy(update={"revoked": now}))

    return _change(workshop, change, now=now)


def renew(workshop: Workshop, *, now: datetime) -> Made:
    """New certificates from the same key, and registrations that end later, in new kits.

    The project's fingerprint stays. The server reads its certificate when it starts.

    Raises:
        ProvisionError: a file is missing or wrong.
    """
    project = Project.load(workshop.project_file)
    _certify(workshop, project, load_authority(workshop).private, now)
    expires = now + timedelta(days=project.validity_days)

    def change(registry: Registry) -> Registry:
        for each in registry.sites.values():
            if each.revoked is None:
                registry = registry.with_site(each.model_copy(update={"expires": expires}))
        return registry

    return _change(workshop, change, now=now)


def load_authority(workshop: Workshop) -> Authority:
    """The project's key and certificate.

    Raises:
        ProvisionError: one is missing, they do not belong together, or others can read the key.
    """
    if not workshop.project_key.exists():
        raise ProvisionError(
            f"project key {workshop.project_key} is missing: run fedistill provision init, or "
            "restore it from a backup"
        )
    content = files.read_private(workshop.project_key, "project key", at_most=_LARGEST_PEM)
    private = parse_private_key(content, f"project key {workshop.project_key}")
    certificate = load_certificate(workshop)
    authority = Authority(private, certificate)
    if certificate.public_key() != private.public_key():
        raise ProvisionError(
            f"{workshop.ca} must be of the key {workshop.project_key}, and is of "
            f"{fingerprint_of(certificate)[:16]}...: restore both from one backup"
        )
    return authority


def load_certificate(workshop: Workshop) -> x509.Certificate:
    """The certificate authority's certificate.

    Raises:
        ProvisionError: it is missing or none.
    """
    content = files.read(workshop.ca, "certificate", at_most=_LARGEST_PEM)
    return parse_certificate(content, str(workshop.ca))


def write_connection(workshop: Workshop, project: Project) -> None:
    """`FLWR_HOME/config.toml`: how `flwr` reaches the SuperLink on this machine."""
    files.make_folder(workshop.flower_home)
    connection = {
        "address": address("127.0.0.1", project.superlink_port),
        "root-certificates": str(workshop.ca),
    }
    text = tomli_w.dumps({"superlink": {"default": CONNECTION, CONNECTION: connection}})
    files.write(workshop.flower_home / "config.toml", text.encode())


def load_server_key(workshop: Workshop) -> str:
    """The public key (hex) by which the server countersigns receipts.

    Raises:
        ProvisionError: it is missing or none.
    """
    path = workshop.countersign_public_key
    text = files.read(path, "server's public key", at_most=_LARGEST_PEM).decode(errors="replace")
    if not re.fullmatch(SHA256, text.strip()):
        raise ProvisionError(
            f"{path} must have 64 hex digits, the public half of {SERVER_KEY}: restore both from "
            "one backup"
        )
    return text.strip()


def _make_countersign_key(workshop: Workshop) -> None:
    files.make_folder(workshop.countersign)
    try:
        create_key(workshop.countersign / SERVER_KEY)
        public = load_key(workshop.countersign / SERVER_KEY).public
    except LedgerError as error:
        raise ProvisionError(str(error)) from error
    files.write(workshop.countersign_public_key, f"{public}\n".encode())


def _certify(
    workshop: Workshop, project: Project, private: ec.EllipticCurvePrivateKey, now: datetime
) -> Authority:
    days = project.validity_days
    authority = make_authority(private, name=project.name, now=now, days=days)
    server = new_key()
    certificate = make_server_certificate(
        authority, server.public_key(), hosts=project.hosts, now=now, days=days
    )
    files.write(workshop.ca, pem(authority.certificate))
    files.write(workshop.server_key, private_pem(server), mode=files.PRIVATE)
    files.write(workshop.server_certificate, pem(certificate))
    return authority


def _change(workshop: Workshop, change: Callable[[Registry], Registry], *, now: datetime) -> Made:
    """Change the registry, and write the kits that say so; no other order comes between."""
    project = Project.load(workshop.project_file)
    authority = load_authority(workshop)
    with locked(workshop):
        registry = change(Registry.load(workshop.registry)).next_serial()
        registry.save(workshop.registry)
        return Made(
            fingerprint=authority.fingerprint,
            registry=registry,
            kits=_write_kits(workshop, project, authority, registry, now),
        )


@contextmanager
def locked(workshop: Workshop) -> Iterator[None]:
    """Against other orders in the same folder."""
    try:
        with locked_directory(workshop.folder):
            yield
    except OSError as error:
        raise ProvisionError(
            f"{workshop.folder} cannot be used ({error.strerror}): check its permissions"
        ) from error


def _write_kits(
    workshop: Workshop, project: Project, authority: Authority, registry: Registry, now: datetime
) -> dict[str, Path]:
    active = registry.active(now)
    server = Server(host=project.hosts[0], port=project.port, server_key=load_server_key(workshop))
    for path in (workshop.kit("any").parent, workshop.public_key("any").parent):
        files.make_folder(path)
    for site in set(registry.sites) - {each.site for each in active}:
        workshop.kit(site).unlink(missing_ok=True)
    for each in active:
        kit = make_kit(
            authority,
            project=project.name,
            serial=registry.serial,
            record=each,
            server=server,
            roster=active,
            now=now,
            expires=each.expires,
        )
        files.write(workshop.kit(each.site), kit)
        files.write(workshop.public_key(each.site), f"{each.supernode}\n".encode())
    return {each.site: workshop.kit(each.site) for each in active}
