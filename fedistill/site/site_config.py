"""What a site's agent runs with: where the rows, the policy, the ledger and the sockets are."""

import ipaddress
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.functional_validators import AfterValidator

from fedistill.data import LabelledRows, ProxySet, code_table, load_table, misfits_in_words
from fedistill.data import register_rows as check_rows
from fedistill.data.encoder import Encoder
from fedistill.errors import BadInput, DataError
from fedistill.site.policy import Policy

LONGEST_SOCKET_PATH = 100
"""Bytes; Linux ends Unix sockets' names at 107, and gRPC needs some."""


def _from_the_file(path: Path, info: ValidationInfo) -> Path:
    """Paths are relative to the file that names them."""
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    return folder / path.expanduser()


def _short(path: Path) -> Path:
    if len(str(path).encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(
            f"{str(path)!r} must have at most {LONGEST_SOCKET_PATH} bytes: choose a shorter folder"
        )
    return path


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, the host an IP address.

    Raises:
        ValueError: It is none.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise ValueError(f"{address!r} must be an IP address and a port, such as 127.0.0.1:9464")
    return host, number


LocalPath = Annotated[Path, AfterValidator(_from_the_file)]
SocketPath = Annotated[LocalPath, AfterValidator(_short)]


class SiteConfig(BaseModel):
    """The keys of the agent's file (kebab-case there). Paths are relative to the file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )

    data_path: LocalPath = Field(description="private rows: CSV, Parquet or npz")
    label_column: str = Field(description="the column to predict")
    classes: tuple[str, ...] = Field(
        min_length=2, description="the agreed classes, in the order that the coordinator published"
    )
    unit_column: str = Field(
        default="", description="whom a row is about, where the policy's unit is group"
    )
    ignore_columns: tuple[str, ...] = Field(default=(), description="columns that are no features")
    proxy_path: LocalPath = Field(description="the site's own copy of the proxy set")
    proxy_sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="sha256 of that file, as its owner approved it"
    )
    encoder_path: LocalPath | None = Field(
        default=None, description="the ONNX file of the proxy set's encoder, if it has one"
    )
    policy_path: LocalPath = Field(
        default=Path("policy.toml"), validate_default=True, description="what the site allows"
    )
    ledger_path: LocalPath = Field(
        default=Path("ledger.db"), validate_default=True, description="the privacy ledger"
    )
    key_path: LocalPath = Field(
        default=Path("identity.key"),
        validate_default=True,
        description="the key that signs for the site",
    )
    receipts_path: LocalPath = Field(
        default=Path("receipts.jsonl"), validate_default=True, description="where receipts go"
    )
    approvals_path: LocalPath = Field(
        default=Path("approvals"),
        validate_default=True,
        description="folder of the questions that wait for the owner, where approval is by hand",
    )
    socket_path: SocketPath = Field(
        description="the courier's socket, in a folder that the courier's group may enter"
    )
    owner_socket_path: SocketPath = Field(
        default=Path("owner.sock"), validate_default=True, description="the owner's socket"
    )
    private_log_path: LocalPath = Field(
        default=Path("private.log"),
        validate_default=True,
        description="what may quote rows, for the owner alone: misfits and errors of private code",
    )
    registered_data_path: LocalPath = Field(
        default=Path("data.sha256"),
        validate_default=True,
        description="the sha256 of the rows' file as its owner registered it",
    )
    metrics_address: str | None = Field(
        default=None, description="where Prometheus may read metrics, such as 127.0.0.1:9464"
    )
    metrics_from_elsewhere: bool = Field(
        default=False, description="whether that may be an address that other machines reach"
    )

    @model_validator(mode="after")
    def _own_folder(self) -> Self:
        if self.socket_path.parent in (self.ledger_path.parent, self.key_path.parent):
            raise ValueError(
                f"socket-path={str(self.socket_path)!r} must have a folder of its own, which the "
                "courier may enter: not that of the ledger or the key"
            )
        return self

    @model_validator(mode="after")
    def _loopback(self) -> Self:
        if self.metrics_address is not None:
            host, _ = split_address(self.metrics_address)
            if not (ipaddress.ip_address(host).is_loopback or self.metrics_from_elsewhere):
                raise ValueError(
                    f"metrics-address={self.metrics_address!r} must be of this machine's loopback, "
                    "such as 127.0.0.1:9464, or metrics-from-elsewhere must be true: their times "
                    "depend on the number of rows"
                )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the agent's file.

        Raises:
            BadInput: It cannot be read or understood; names the key and the bound.
        """
        try:
            return cls.model_validate(
                tomllib.loads(path.read_text()), context={"folder": path.absolute().parent}
            )
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"{str(path)!r} cannot be read as TOML: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise BadInput(f"{str(path)!r}: {key}: {first['msg']}") from None


def load_proxy(config: SiteConfig) -> ProxySet:
    """The proxy set that its owner approved.

    Raises:
        DataError: The file is another one, or its encoder's file is missing or another one.
    """
    proxy = ProxySet.load(config.proxy_path)
    if proxy.sha256 != config.proxy_sha256:
        raise DataError(
            f"proxy-path={str(config.proxy_path)!r} has sha256 {proxy.sha256}, and proxy-sha256="
            f"{config.proxy_sha256} must be the same: look at the new set, then approve its hash"
        )
    if proxy.encoder is None or proxy.encoder.import_path:
        return proxy
    found = Encoder.named(str(config.encoder_path)) if config.encoder_path else None
    if found is None or found.identity != proxy.encoder.identity:
        raise DataError(
            f"encoder-path={str(config.encoder_path or '')!r} must be the ONNX file of the proxy "
            f"set's encoder, sha256 {proxy.encoder.sha256}: get it from whoever published the set"
        )
    return replace(proxy, encoder=found)


def load_rows(config: SiteConfig, policy: Policy, proxy: ProxySet) -> tuple[LabelledRows, str]:
    """The private rows that fit, and in words which do not: for the owner's own log.

    Raises:
        DataError: The file cannot be read, or its columns, classes or number of rows do not fit.
            Row-dependent: for the owner's own log.
    """
    table = load_table(
        str(config.data_path),
        label_column=config.label_column,
        unit_column=config.unit_column,
        ignore_columns=config.ignore_columns,
        classes=config.classes,
    )
    rows = code_table(table, proxy.schema)
    fitting = check_rows(
        rows,
        proxy,
        num_classes=len(config.classes),
        rows_at_least=policy.rows_at_least,
        site=policy.site,
    )
    return fitting, misfits_in_words(rows)
