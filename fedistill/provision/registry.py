"""`registry.json`: which sites the coordinator signed and revoked; the kits' serial."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fedistill.errors import ProvisionError
from fedistill.provision import files
from fedistill.provision.project import Name, in_words
from fedistill.provision.request import Request, SiteRecord

_LARGEST = 8 << 20


class Registration(SiteRecord):
    """A site that was signed.

    Attributes:
        signed: When.
        expires: When the registration ends; `provision register` then removes it from Flower.
        revoked: When it was revoked; None for a site that takes part.
    """

    signed: AwareDatetime
    expires: AwareDatetime
    revoked: AwareDatetime | None = None

    def is_active(self, now: datetime) -> bool:
        """Whether it takes part."""
        return self.revoked is None and now < self.expires


class Registry(BaseModel):
    """All registrations.

    Attributes:
        serial: Of the last kits; each change of the roster makes a larger one.
        sites: By name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: int = 0
    sites: Mapping[Name, Registration] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it.

        Raises:
            ProvisionError: it cannot be read or is none.
        """
        content = files.read(path, "registry", at_most=_LARGEST)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise ProvisionError(
                f"registry {path}: {in_words(error)}, or restore it from a backup"
            ) from error

    def save(self, path: Path) -> None:
        """Write it, complete or not at all."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        files.write(path, text.encode(), mode=files.PRIVATE)

    def active(self, now: datetime) -> tuple[Registration, ...]:
        """Sites that take part, by name."""
        found = (each for each in self.sites.values() if each.is_active(now))
        return tuple(sorted(found, key=lambda each: each.site))

    def with_site(self, registration: Registration) -> Self:
        """With one more site, or another state of one."""
        return self.model_copy(update={"sites": {**self.sites, registration.site: registration}})

    def next_serial(self) -> Self:
        """For kits that say something new."""
        return self.model_copy(update={"serial": self.serial + 1})

    def get(self, site: str) -> Registration:
        """The registration of a site.

        Raises:
            ProvisionError: it was never signed.
        """
        if site not in self.sites:
            known = ", ".join(sorted(self.sites)) or "none"
            raise ProvisionError(
                f"SITE={site!r} must be a site that was signed ({known}): run fedistill provision "
                "sign with its request"
            )
        return self.sites[site]


def sign_request(
    registry: Registry,
    request: Request,
    *,
    allowed: tuple[str, ...],
    now: datetime,
    expires: datetime,
    replace: bool = False,
) -> Registry:
    """Take a site in.

    Signing the same keys again renews the registration. Other keys need `replace`: that is how a
    site comes back after it was revoked, since Flower never takes a removed key again.

    Raises:
        ProvisionError: the project does not name the site, its keys are another site's or were
            revoked, or it has other keys and `replace` is off.
    """
    site = request.site
    if site not in allowed:
        raise ProvisionError(
            f"site={site!r} must be one of the project's sites ({', '.join(allowed)}): add it to "
            "project.toml, or ask for a request by another name"
        )
    record = SiteRecord(site=site, identity=request.identity, supernode=request.supernode)
    for each in registry.sites.values():
        if each.site != site and (
            each.identity == record.identity or each.supernode == record.supernode
        ):
            raise ProvisionError(
                f"site={site!r} must have keys of its own, and these are {each.site}'s: run "
                "fedistill site init in a folder of its own"
            )
    before = registry.sites.get(site)
    same = before is not None and before.supernode == record.supernode
    if before is not None and same and before.revoked is not None:
        raise ProvisionError(
            f"site={site!r}: these keys were revoked on {before.revoked:%Y-%m-%d}, and Flower "
            "takes no removed key again: run fedistill site init --new-keys there, then sign with "
            "--replace"
        )
    changed = before is not None and (not same or before.identity != record.identity)
    if before is not None and changed and not replace:
        raise ProvisionError(
            f"site={site!r} was signed with other keys on {before.signed:%Y-%m-%d}: compare "
            "fingerprints with the site, then sign with --replace"
        )
    return registry.with_site(Registration(**record.model_dump(), signed=now, expires=expires))
