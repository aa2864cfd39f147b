"""The site's folder: its own keys, what it joined, and whose identities it pinned."""

import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fedistill.errors import LedgerError, ProvisionError
from fedistill.privacy.ledger_key import SiteKey, create_key, load_key
from fedistill.provision import files
from fedistill.provision.authority import new_key, pem
from fedistill.provision.fingerprints import check, grouped, parse
from fedistill.provision.kit import LARGEST, Kit, Server, peek_fingerprint, read_kit
from fedistill.provision.project import Name, address, check_name, in_words
from fedistill.provision.request import PublicKey, SiteRecord, make_request, ssh_key

_LARGEST_FILE = 1 << 20


class Membership(BaseModel):
    """`site.toml`, written by `site join`.

    Attributes:
        site: The site's name.
        project: The project's.
        fingerprint: The project's, compared at the first join.
        serial: Of the kit; an older one is refused.
        expires: When the registration ends.
        server: Host and port to connect to.
        roster: All sites that take part, this one too, as the coordinator lists them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    project: Name
    fingerprint: PublicKey
    serial: int = Field(ge=1)
    expires: AwareDatetime
    server: Server
    roster: tuple[SiteRecord, ...]

    @property
    def address(self) -> str:
        """`HOST:PORT` of the server."""
        return address(self.server.host, self.server.port)

    @property
    def peers(self) -> tuple[SiteRecord, ...]:
        """The other sites."""
        return tuple(each for each in self.roster if each.site != self.site)


@dataclass(frozen=True)
class SiteFolder:
    """What a site has; of its owner alone."""

    path: Path

    @property
    def identity(self) -> Path:
        """Private: the Ed25519 key that signs as this site."""
        return self.path / "identity.key"

    @property
    def supernode(self) -> Path:
        """Private: the EC P-384 key that Flower's SuperNode authenticates with."""
        return self.path / "supernode.key"

    @property
    def request(self) -> Path:
        """To be sent to the coordinator."""
        return self.path / "request.json"

    @property
    def membership(self) -> Path:
        """What the last kit said."""
        return self.path / "site.toml"

    @property
    def ca(self) -> Path:
        """The project's certificate, for `flower-supernode --root-certificates`."""
        return self.path / "ca.crt"

    @property
    def pins(self) -> Path:
        """Fingerprints of peers' identities that somebody compared."""
        return self.path / "pins.toml"

    @property
    def policy(self) -> Path:
        """What the site allows; its owner writes it."""
        return self.path / "policy.toml"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What a kit changed.

    Attributes:
        membership: As it is now.
        dropped: Peers whose pin went, because they left or have another identity now.
        unpinned: Peers whose fingerprint nobody compared yet.
    """

    membership: Membership
    dropped: tuple[str, ...]
    unpinned: tuple[SiteRecord, ...]


def init_site(folder: SiteFolder, site: str, *, now: datetime, new_keys: bool = False) -> SiteKey:
    """Make the site's keys where there are none, and its request.

    Args:
        folder: The site's.
        site: The name that the coordinator listed.
        now: The date of the request.
        new_keys: Make another SuperNode key, as after a revocation; the old one is renamed. The
            identity stays, for it signs the ledger.

    Raises:
        ProvisionError: the name is none, or the keys cannot be written or read.
    """
    check_name(site)
    files.make_folder(folder.path)
    if new_keys and folder.supernode.exists():
        folder.supernode.replace(folder.supernode.with_name(f"supernode.{now:%Y%m%dT%H%M%S}.key"))
    try:
        create_key(folder.identity)
        identity = load_key(folder.identity)
    except LedgerError as error:
        raise ProvisionError(str(error)) from error
    if not folder.supernode.exists():
        private = new_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        files.write(folder.supernode, private, mode=files.PRIVATE)
    files.write(folder.request, make_request(site, identity, load_supernode_key(folder), now=now))
    return identity


def load_supernode_key(folder: SiteFolder) -> ec.EllipticCurvePrivateKey:
    """The private key of the site's SuperNode.

    Raises:
        ProvisionError: it is missing, none, or others can read it.
    """
    path = folder.supernode
    content = files.read_private(path, "SuperNode key", at_most=_LARGEST_FILE)
    try:
        key = load_ssh_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise _no_supernode_key(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp384r1":
        raise _no_supernode_key(path)
    return key


def join(folder: SiteFolder, archive: Path, *, fingerprint: str | None, now: datetime) -> Joined:
    """Take up a kit: the first one, or a newer one over an older.

    Args:
        folder: With the site's keys.
        archive: The kit.
        fingerprint: The project's, as somebody compared it; None for a later kit, which must be of
            the project that was joined.
        now: By which the kit must not have expired.

    Raises:
        ProvisionError: the kit is wrong, another project's, another site's, or older than the last.
    """
    content = files.read(archive, "kit", at_most=LARGEST)
    before = load_membership(folder) if folder.membership.exists() else None
    if before is not None:
        theirs = peek_fingerprint(content)
        check(theirs, before.fingerprint, "kit: fingerprint", f"{before.project}, joined before")
        fingerprint = before.fingerprint if fingerprint is None else fingerprint
    if fingerprint is None:
        raise ProvisionError(
            "--fingerprint is missing, and the kit says "
            f"{grouped(peek_fingerprint(content))}: compare that with the coordinator by "
            "telephone, then give it"
        )
    kit = read_kit(content, fingerprint=fingerprint, now=now)
    _check_is_ours(folder, kit)
    if before is not None and kit.manifest.serial < before.serial:
        raise ProvisionError(
            f"kit: serial={kit.manifest.serial} must be at least {before.serial}, that of the kit "
            "that was joined: an old kit may list sites that were revoked, ask for the newest"
        )
    membership = Membership(
        site=kit.manifest.site,
        project=kit.manifest.project,
        fingerprint=kit.project_fingerprint,
        serial=kit.manifest.serial,
        expires=kit.manifest.expires,
        server=kit.server,
        roster=kit.roster,
    )
    pins = load_pins(folder)
    listed = {each.site: each.fingerprint for each in membership.peers}
    kept = {site: pin for site, pin in pins.items() if listed.get(site) == pin}
    _save_pins(folder, kept)
    files.write(folder.ca, pem(kit.ca))
    text = tomli_w.dumps(membership.model_dump(mode="json"))
    files.write(folder.membership, text.encode())
    return Joined(
        membership=membership,
        dropped=tuple(sorted(set(pins) - set(kept))),
        unpinned=tuple(each for each in membership.peers if each.site not in kept),
    )


def pin(folder: SiteFolder, site: str, fingerprint: str) -> None:
    """Pin a peer whose fingerprint somebody compared with that peer.

    Raises:
        ProvisionError: no peer has this name, or the roster has another fingerprint for it.
    """
    peers = {each.site: each for each in load_membership(folder).peers}
    if site not in peers:
        raise ProvisionError(
            f"SITE={site!r} must be another site of the roster ({', '.join(peers) or 'none'}): "
            "join a newer kit, or correct the name"
        )
    check(fingerprint, peers[site].fingerprint, "FINGERPRINT", f"{site} in the roster")
    _save_pins(folder, load_pins(folder) | {site: peers[site].fingerprint})


def load_membership(folder: SiteFolder) -> Membership:
    """What the last kit said.

    Raises:
        ProvisionError: no kit was joined, or the file was changed into nonsense.
    """
    if not folder.membership.exists():
        raise ProvisionError(
            f"{folder.membership} is missing: run fedistill site join with the coordinator's kit"
        )
    content = files.read(folder.membership, "membership", at_most=_LARGEST_FILE)
    try:
        return Membership.model_validate(tomllib.loads(content.decode()), strict=False)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProvisionError(f"{folder.membership} is not a TOML file: {error}") from error
    except ValidationError as error:
        raise ProvisionError(f"{folder.membership}: {in_words(error)}") from error


def load_pins(folder: SiteFolder) -> dict[str, str]:
    """Fingerprints in hex, by peer.

    Raises:
        ProvisionError: the file was changed into nonsense.
    """
    if not folder.pins.exists():
        return {}
    content = files.read(folder.pins, "pins", at_most=_LARGEST_FILE)
    try:
        peers = tomllib.loads(content.decode()).get("peers", {})
        return {str(site): parse(str(value), site) for site, value in peers.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ProvisionError(
            f"{folder.pins} has no table [peers] in TOML: delete it, and pin the peers again"
        ) from error


def _save_pins(folder: SiteFolder, pins: dict[str, str]) -> None:
    text = tomli_w.dumps({"peers": dict(sorted(pins.items()))})
    files.write(folder.pins, text.encode(), mode=files.PRIVATE)


def _check_is_ours(folder: SiteFolder, kit: Kit) -> None:
    manifest = kit.manifest
    try:
        identity = load_key(folder.identity).public
    except LedgerError as error:
        raise ProvisionError(str(error)) from error
    ours = SiteRecord(
        site=manifest.site,
        identity=identity,
        supernode=ssh_key(load_supernode_key(folder).public_key()),
    )
    theirs = SiteRecord(
        site=manifest.site, identity=manifest.identity, supernode=manifest.supernode
    )
    if ours != theirs or ours not in kit.roster:
        raise ProvisionError(
            f"kit is for site {manifest.site!r} with the identity "
            f"{grouped(theirs.fingerprint)}, and the keys in {folder.path} are others: send "
            f"{folder.request} to the coordinator and ask for the kit that answers it"
        )


def _no_supernode_key(path: Path) -> ProvisionError:
    return ProvisionError(
        f"SuperNode key {path} is no EC P-384 key in OpenSSH's form: restore it from a backup, or "
        "run fedistill site init --new-keys and send the new request"
    )
