"""The only file of provisioning that knows Flower: its command line and one Fleet call."""

import json
import os
import ssl
import subprocess
import sysconfig
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedistill.errors import RunFailed
from fedistill.provision import files
from fedistill.provision.coordinator import CONNECTION, locked
from fedistill.provision.project import Workshop
from fedistill.provision.registry import Registration, Registry

_SECONDS = 60
_NO_INTERVAL = 0.0


class Known(StrEnum):
    """What the SuperLink says about a SuperNode's key."""

    REGISTERED = "registered"
    UNKNOWN = "unknown"
    UNCLEAR = "unclear"


_ANSWERS = {
    int(ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL): Known.REGISTERED,
    int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED): Known.UNKNOWN,
}


def register(workshop: Workshop, *, now: datetime) -> tuple[list[str], list[str]]:
    """Bring the SuperLink's list of SuperNodes in line with the registry.

    Returns:
        Sites that were registered, and those that were removed.

    Raises:
        RunFailed: the SuperLink does not answer or refuses; what was done so far is kept.
        ProvisionError: a file is missing or wrong.
    """
    with locked(workshop):
        registry = Registry.load(workshop.registry)
        added, removed = [], []
        for old in registry.replaced:
            _unregister(workshop, old)
            rest = tuple(each for each in registry.replaced if each != old)
            registry = registry.model_copy(update={"replaced": rest})
            registry.save(workshop.registry)
            removed.append(old.site)
        for site in sorted(registry.sites):
            each = registry.sites[site]
            if each.is_active(now) == bool(each.node_id):
                continue
            if each.node_id:
                _unregister(workshop, each)
                # Flower takes no removed key again, so an expired site is out as a revoked one is.
                update = {"node_id": "", "revoked": each.revoked or now}
                removed.append(site)
            else:
                update = {"node_id": _register(workshop, each)}
                added.append(site)
            registry = registry.with_site(each.model_copy(update=update))
            registry.save(workshop.registry)
        return added, removed


def ask_registration(address: str, ca: Path, private: ec.EllipticCurvePrivateKey) -> Known:
    """Ask the SuperLink whether it knows a SuperNode's key, and change nothing there.

    An activation with a heartbeat interval of 0 is refused in either case: for the interval where
    the key is registered, else for the key.
    """
    public = private.public_key()
    interceptors: tuple[ProtobufClientInterceptor, ...] = (
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(private, public),
    )
    request = ActivateNodeRequest(
        public_key=public_key_to_bytes(public), heartbeat_interval=_NO_INTERVAL
    )
    try:
        with FleetHttpClient.from_server_address(
            address, False, ca.read_bytes(), interceptors
        ) as client:
            client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        return _ANSWERS.get(_code(error.response), Known.UNCLEAR)
    except (httpx.HTTPError, OSError, ssl.SSLError, ValueError):
        return Known.UNCLEAR
    return Known.UNCLEAR


def _register(workshop: Workshop, site: Registration) -> str:
    files.make_folder(workshop.public_key(site.site).parent)
    files.write(workshop.public_key(site.site), f"{site.supernode}\n".encode())
    arguments = ("register", str(workshop.public_key(site.site)), CONNECTION, "--name", site.site)
    return str(_flwr(workshop, site.site, *arguments)["node-id"])


def _unregister(workshop: Workshop, site: Registration) -> None:
    _flwr(workshop, site.site, "unregister", site.node_id, CONNECTION)


def _flwr(workshop: Workshop, site: str, *arguments: str) -> dict[str, object]:
    flwr = Path(sysconfig.get_path("scripts")) / "flwr"
    environment = os.environ | {
        "FLWR_HOME": str(workshop.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    try:
        done = subprocess.run(  # noqa: S603
            [flwr, "supernode", *arguments, "--format", "json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        answer: dict[str, object] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, OSError, json.JSONDecodeError):
        answer = {}
    if not answer.get("success"):
        said = " ".join(str(answer.get("error-message", "no answer")).split())
        raise RunFailed(
            f"site={site!r} could not be {arguments[0]}ed at the SuperLink ({said[:200]}): start "
            "the SuperLink on this machine, then run fedistill provision register"
        )
    return answer


def _code(response: httpx.Response) -> int:
    try:
        return int(json.loads(response.content)["code"])
    except (ValueError, KeyError, TypeError):
        return 0
