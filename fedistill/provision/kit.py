"""`SITE.kit.zip`: the server's address, the certificate authority and the roster, signed.

Members, all of them and no others:

    manifest.json   format, project, serial, site, its two keys, times, sha256 and size of the rest
    manifest.sig    the project's signature of manifest.json (fedistill.provision.authority)
    ca.crt          the project's certificate, whose key signed; people compare its fingerprint
    server.json     host and port of the server, and the key by which it countersigns receipts
    roster.json     name, identity and SuperNode key of each site that takes part

Nothing is unpacked by a name that stands in the archive: the five members are read into memory, up
to a bound, and `site join` writes files of its own names.
"""

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedistill.errors import ProvisionError
from fedistill.provision.authority import (
    Authority,
    days_left,
    fingerprint_of,
    is_kit_signature,
    parse_certificate,
    pem,
)
from fedistill.provision.fingerprints import check
from fedistill.provision.project import Name, in_words
from fedistill.provision.request import PublicKey, SiteRecord, SshKey

MANIFEST, SIGNATURE, CA, SERVER, ROSTER = (
    "manifest.json",
    "manifest.sig",
    "ca.crt",
    "server.json",
    "roster.json",
)
LARGEST_MEMBER = 1 << 20
LARGEST = 6 * LARGEST_MEMBER

_EPOCH = (1980, 1, 1, 0, 0, 0)
_Parsed = TypeVar("_Parsed")


class Server(BaseModel):
    """Where sites connect to, and the key (public, hex) that countersigns their receipts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(max_length=253)
    port: int = Field(ge=1, le=65535)
    server_key: PublicKey


class _Member(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: PublicKey
    size: int = Field(ge=0, le=LARGEST_MEMBER)


class Manifest(BaseModel):
    """What the project's key signs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fedistill startup kit 1"] = "fedistill startup kit 1"
    project: Name
    serial: int = Field(ge=1)
    site: Name
    identity: PublicKey
    supernode: SshKey
    made: AwareDatetime
    expires: AwareDatetime
    files: dict[Literal["ca.crt", "server.json", "roster.json"], _Member]


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A kit whose signature and hashes are right."""

    manifest: Manifest
    ca: x509.Certificate
    server: Server
    roster: tuple[SiteRecord, ...]

    @property
    def project_fingerprint(self) -> str:
        """What the signature is worth: nothing before somebody has compared this."""
        return fingerprint_of(self.ca)


Roster = TypeAdapter(Annotated[tuple[SiteRecord, ...], Field(min_length=1, max_length=1000)])


def make_kit(
    authority: Authority,
    *,
    project: str,
    serial: int,
    record: SiteRecord,
    server: Server,
    roster: tuple[SiteRecord, ...],
    now: datetime,
    expires: datetime,
) -> bytes:
    """The zip archive of a site."""
    listed = [SiteRecord.model_validate(each.model_dump(include=_FIELDS)) for each in roster]
    content = {
        CA: pem(authority.certificate),
        SERVER: _json(server.model_dump(mode="json")),
        ROSTER: _json([each.model_dump(mode="json") for each in listed]),
    }
    manifest = Manifest(
        project=project,
        serial=serial,
        site=record.site,
        identity=record.identity,
        supernode=record.supernode,
        made=now,
        expires=expires,
        files={
            name: _Member(sha256=hashlib.sha256(each).hexdigest(), size=len(each))  # type: ignore[misc]
            for name, each in content.items()
        },
    )
    signed = _json(manifest.model_dump(mode="json"))
    members = {MANIFEST: signed, SIGNATURE: authority.sign_kit(signed)} | content
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, each in members.items():
            file.writestr(zipfile.ZipInfo(name, date_time=_EPOCH), each)
    return archive.getvalue()


def read_kit(content: bytes, *, fingerprint: str, now: datetime) -> Kit:
    """A kit that the project's key signed.

    Args:
        content: The archive.
        fingerprint: The project's, which somebody compared.
        now: By which it must not have expired.

    Raises:
        ProvisionError: it is damaged, was changed, is another project's, or has expired.
    """
    members = _members(content)
    certificate = parse_certificate(members[CA], f"kit: {CA}")
    check(fingerprint, fingerprint_of(certificate), "fingerprint", "the project of this kit")
    if not is_kit_signature(certificate, members[MANIFEST], members[SIGNATURE]):
        raise _changed(f"{SIGNATURE} is no signature of {MANIFEST} by the project's key")
    manifest = _parse(TypeAdapter(Manifest), members[MANIFEST], MANIFEST)
    for name in (CA, SERVER, ROSTER):
        stated = manifest.files.get(name)  # type: ignore[call-overload]
        if stated is None or stated.sha256 != hashlib.sha256(members[name]).hexdigest():
            raise _changed(f"{name} is not the file that {MANIFEST} lists")
    if min(days_left(certificate, now), (manifest.expires - now).total_seconds()) <= 0:
        raise ProvisionError(
            f"kit of {manifest.site} expired on {manifest.expires:%Y-%m-%d}: ask the coordinator "
            "to run fedistill provision renew and to send the new kit"
        )
    return Kit(
        manifest=manifest,
        ca=certificate,
        server=_parse(TypeAdapter(Server), members[SERVER], SERVER),
        roster=_parse(Roster, members[ROSTER], ROSTER),
    )


def peek_fingerprint(content: bytes) -> str:
    """The fingerprint of the project that a kit claims to be from, for people to compare.

    Raises:
        ProvisionError: it is no kit.
    """
    return fingerprint_of(parse_certificate(_members(content)[CA], f"kit: {CA}"))


_FIELDS = set(SiteRecord.model_fields)


def _members(content: bytes) -> dict[str, bytes]:
    expected = {MANIFEST, SIGNATURE, CA, SERVER, ROSTER}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if sorted(names) != sorted(expected):
                raise _changed(f"members must be {', '.join(sorted(expected))}, each once")
            return {name: _bounded(archive, name) for name in names}
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,  # an encrypted member
        NotImplementedError,  # an unknown compression
    ) as error:
        raise _changed("it is no zip archive that fedistill wrote") from error


def _bounded(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as stream:
        content = stream.read(LARGEST_MEMBER + 1)
    if len(content) > LARGEST_MEMBER:
        raise _changed(f"{name} must have at most {LARGEST_MEMBER:,} bytes")
    return content


def _parse(kind: TypeAdapter[_Parsed], content: bytes, name: str) -> _Parsed:
    try:
        return kind.validate_json(content)
    except ValidationError as error:
        raise _changed(f"{name}: {in_words(error)}") from error


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _changed(what: str) -> ProvisionError:
    return ProvisionError(f"kit: {what}: it was damaged or changed on its way, ask for it again")
