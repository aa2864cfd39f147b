"""`project.toml`, which the coordinator writes, and the files that lie beside it."""

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import field_validator as checked

from fedistill.errors import ProvisionError
from fedistill.privacy.countersign import SERVER_PUBLIC_KEY
from fedistill.provision import files

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]

_LARGEST = 1 << 20
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


class Project(BaseModel):
    """Who takes part, and where the server is (kebab-case keys in the file)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )

    name: Name = Field(description="of the project; it is in every certificate")
    hosts: tuple[str, ...] = Field(
        min_length=1,
        max_length=32,
        description="names and addresses of the server; sites connect to the first",
    )
    port: int = Field(default=9092, ge=1, le=65535, description="that sites connect to")
    superlink_port: int = Field(
        default=9093, ge=1, le=65535, description="of the SuperLink, on the server's loopback only"
    )
    sites: tuple[Name, ...] = Field(
        min_length=1, max_length=1000, description="names of the sites that may be signed"
    )
    validity_days: int = Field(
        default=365, ge=1, le=3650, description="of certificates and registrations"
    )

    @checked("hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not is_host(host):
                raise ValueError(f"{host!r} must be a DNS name or an IP address")
        return hosts

    @checked("sites")
    @classmethod
    def _differ(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        if len({site.lower() for site in sites}) < len(sites):
            raise ValueError("names must differ by more than upper and lower case")
        return sites

    @property
    def address(self) -> str:
        """`HOST:PORT` that sites connect to."""
        return address(self.hosts[0], self.port)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a project.

        Raises:
            ProvisionError: names the file, the field, its value and the bound.
        """
        text = files.read(path, "project", at_most=_LARGEST)
        try:
            return cls.model_validate(tomllib.loads(text.decode()), strict=False)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ProvisionError(f"project {path} is not a TOML file: {error}") from error
        except ValidationError as error:
            raise ProvisionError(f"project {path}: {in_words(error)}") from error


@dataclass(frozen=True)
class Workshop:
    """The coordinator's folder: the project file and what `provision` makes beside it."""

    project_file: Path

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.project_file.absolute().parent

    @property
    def project_key(self) -> Path:
        """Private: signs certificates and kits. Needed on no server."""
        return self.folder / "project.key"

    @property
    def ca(self) -> Path:
        """The certificate authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def server_key(self) -> Path:
        """Private: the server's."""
        return self.folder / "server.key"

    @property
    def server_certificate(self) -> Path:
        """The server's."""
        return self.folder / "server.crt"

    @property
    def countersign(self) -> Path:
        """`countersign-dir` of runs: the key that countersigns receipts, and what it signed."""
        return self.folder / "countersign"

    @property
    def countersign_public_key(self) -> Path:
        """Its public half, which is in every kit."""
        return self.countersign / SERVER_PUBLIC_KEY

    @property
    def registry(self) -> Path:
        """Which sites were signed and revoked, and the kits' serial number."""
        return self.folder / "registry.json"

    @property
    def nodes(self) -> Path:
        """Which SuperNodes the SuperLink has; written on the server."""
        return self.folder / "nodes.json"

    @property
    def flower_home(self) -> Path:
        """`FLWR_HOME` of the coordinator: its connection to the SuperLink."""
        return self.folder / "flower"

    def kit(self, site: str) -> Path:
        """What to send to a site."""
        return self.folder / "kits" / f"{site}.kit.zip"

    def public_key(self, site: str) -> Path:
        """A site's SuperNode key as `flwr supernode register` reads it."""
        return self.folder / "supernodes" / f"{site}.pub"


def is_host(text: str) -> bool:
    """Whether this is a DNS name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= 253 and all(_LABEL.fullmatch(part) for part in text.split("."))
    return True


def check_name(site: str) -> None:
    """Refuse what no site can be called.

    Raises:
        ProvisionError: it is empty, too long, or holds another character.
    """
    if not re.fullmatch(NAME, site):
        raise ProvisionError(
            f"SITE={site[:80]!r} must have 1 to 63 letters, digits, - or _, and begin with a "
            "letter or digit: use the name that the coordinator lists"
        )


def address(host: str, port: int) -> str:
    """`host:port`, with brackets round an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def in_words(error: ValidationError) -> str:
    """The first fault that pydantic found: field, value and bound."""
    fault = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"]) or "the whole"
    if fault["type"] == "missing":
        return f"{field} is missing: add it"
    if fault["type"] == "extra_forbidden":
        return f"{field} is unknown: remove it, or correct its spelling"
    value = repr(fault["input"])
    said = fault["msg"].removeprefix("Value error, ")
    return f"{field}={value if len(value) < 80 else value[:77] + '...'}: {said}: correct it"
