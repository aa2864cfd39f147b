"""The only file of provisioning that knows Flower: its command line and one Fleet call."""

import json
import os
import ssl
import subprocess
import sysconfig
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedistill.errors import ProvisionError, RunFailed
from fedistill.provision import files
from fedistill.provision.coordinator import CONNECTION, locked, write_connection
from fedistill.provision.nodes import Node, Nodes
from fedistill.provision.project import Project, Workshop
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
        ProvisionError: a file is missing or wrong, or a site's key was removed before.
    """
    removed = remove(workshop, now=now)
    with locked(workshop):
        wanted = _wanted(workshop, now)
        nodes, added = Nodes.load(workshop.nodes), []
        for key, each in wanted.items():
            if key not in nodes.registered and key not in nodes.removed:
                node = Node(site=each.site, node_id=_register(workshop, each))
                nodes = nodes.with_node(key, node)
                nodes.save(workshop.nodes)
                added.append(each.site)
    for key in nodes.removed:
        if key in wanted:
            raise ProvisionError(
                f"site={wanted[key].site!r}: its SuperNode key was removed from the SuperLink, "
                "which takes no removed key again: run fedistill site init --new-keys there, then "
                "sign with --replace"
            )
    return added, removed


def remove(workshop: Workshop, *, now: datetime) -> list[str]:
    """Remove SuperNodes of sites that no longer take part, or have other keys: their sites.

    Raises:
        RunFailed: the SuperLink does not answer or refuses; what was done so far is kept.
        ProvisionError: a file is missing or wrong.
    """
    write_connection(workshop, Project.load(workshop.project_file))
    with locked(workshop):
        wanted, nodes, removed = _wanted(workshop, now), Nodes.load(workshop.nodes), []
        for key, node in nodes.registered.items():
            if key not in wanted:
                _flwr(workshop, node.site, "unregister", node.node_id, CONNECTION)
                nodes = nodes.without(key)
                nodes.save(workshop.nodes)
                removed.append(node.site)
    return removed


def online(workshop: Workshop) -> int:
    """How many SuperNodes the SuperLink says are connected; 0 where it does not answer."""
    nodes = _answer(workshop, "list", CONNECTION).get("nodes", [])
    return sum(node.get("status") == "online" for node in nodes)


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


def _wanted(workshop: Workshop, now: datetime) -> dict[str, Registration]:
    registry = Registry.load(workshop.registry)
    return {each.supernode: each for each in registry.active(now)}


def _register(workshop: Workshop, site: Registration) -> str:
    files.make_folder(workshop.public_key(site.site).parent)
    files.write(workshop.public_key(site.site), f"{site.supernode}\n".encode())
    arguments = ("register", str(workshop.public_key(site.site)), CONNECTION, "--name", site.site)
    return str(_flwr(workshop, site.site, *arguments)["node-id"])


def _flwr(workshop: Workshop, site: str, *arguments: str) -> dict[str, Any]:
    """What the order gave; a refusal is raised."""
    answer = _answer(workshop, *arguments)
    if not answer.get("success"):
        said = " ".join(str(answer.get("error-message", "no answer")).split())
        raise RunFailed(
            f"site={site!r} could not be {arguments[0]}ed at the SuperLink ({said[:200]}): start "
            "the SuperLink, then run fedistill provision register on its machine"
        )
    return answer


def _answer(workshop: Workshop, *arguments: str) -> dict[str, Any]:
    """What `flwr supernode` printed; {} for none."""
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
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, OSError, json.JSONDecodeError):
        return {}
    return answer


def _code(response: httpx.Response) -> int:
    try:
        return int(json.loads(response.content)["code"])
    except (ValueError, KeyError, TypeError):
        return 0
