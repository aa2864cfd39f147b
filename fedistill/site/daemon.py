"""The site's agent as a long-running process, which alone can read the private rows.

It listens on two Unix sockets: the courier's, for whoever may enter its folder, and the owner's.
Locks beside socket and ledger, which the kernel drops with the process, keep a second one out.
"""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from fedistill.errors import BadInput, RunFailed
from fedistill.features import proxy_basis
from fedistill.site.agent import LocalAgent
from fedistill.site.approvals import Approvals
from fedistill.site.policy import Policy
from fedistill.site.service import SiteService
from fedistill.site.site_config import SiteConfig, load_proxy, load_rows
from fedistill.site_api import agent_pb2, agent_pb2_grpc
from fedistill.site_api.client import OPTIONS

COURIER_FOLDER_MODE = 0o750
COURIER_SOCKET_MODE = 0o660
OWNER_SOCKET_MODE = 0o600

_WAITING_CALLS = 8
_SECONDS_TO_FINISH = 30.0

log = logging.getLogger("fedistill.site")


@dataclass(frozen=True)
class _Owner(agent_pb2_grpc.SiteOwnerServicer):  # type: ignore[misc]
    """What the owner may ask; answered while a question is being answered."""

    service: SiteService
    policy: Policy
    started: float

    def Status(  # noqa: N802
        self, _request: agent_pb2.StatusRequest, _context: grpc.ServicerContext
    ) -> agent_pb2.StatusReply:
        return agent_pb2.StatusReply(
            site=self.policy.site,
            population=self.policy.population,
            busy=self.service.busy,
            rounds=self.service.rounds,
            started=self.started,
        )


def run_agent(config: SiteConfig, peers: Mapping[str, str] | None = None) -> None:
    """Register the rows and answer until SIGTERM or SIGINT; a question under way is finished.

    Args:
        config: The agent's.
        peers: Public keys (hex) of the other sites; None: those that the policy names.

    Raises:
        RunFailed: Another agent has the socket or the ledger.
        Refusal: There is no policy, no ledger or no key.
        BadInput: Rows or proxy set cannot be used.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with serving(config, peers):
        stopped.wait()
        log.info("stopping: a question under way is finished first")
    log.info("stopped")


@contextmanager
def serving(config: SiteConfig, peers: Mapping[str, str] | None = None) -> Iterator[None]:
    """An agent that answers on its sockets within the context; for `peers` see `run_agent`.

    Raises:
        RunFailed: Another agent has the socket or the ledger.
        Refusal: There is no policy, no ledger or no key.
        BadInput: Rows or proxy set cannot be used.
    """
    with ExitStack() as stack:
        policy = Policy.load(config.policy_path)
        if peers is not None:
            policy = policy.model_copy(update={"peers": peers})
        _make_folder(config.socket_path.parent)
        for field, path in (
            ("ledger-path", config.ledger_path),
            ("socket-path", config.socket_path),
            ("owner-socket-path", config.owner_socket_path),
        ):
            stack.enter_context(_locked(field, path))
        agent = make_agent(config, policy)
        worker = stack.enter_context(ThreadPoolExecutor(1, "agent"))
        worker.submit(_open, agent).result()
        stack.callback(lambda: worker.submit(agent.__exit__, None, None, None).result())
        service = SiteService(agent, worker)
        owner = _Owner(service, policy, time.time())
        for path, mode, add, servicer in (
            (
                config.socket_path,
                COURIER_SOCKET_MODE,
                agent_pb2_grpc.add_SiteAgentServicer_to_server,
                service,
            ),
            (
                config.owner_socket_path,
                OWNER_SOCKET_MODE,
                agent_pb2_grpc.add_SiteOwnerServicer_to_server,
                owner,
            ),
        ):
            server = grpc.server(
                ThreadPoolExecutor(_WAITING_CALLS, "socket"),
                options=OPTIONS,
                maximum_concurrent_rpcs=_WAITING_CALLS,
            )
            add(servicer, server)
            _listen(server, path, mode)
            stack.callback(_finish, server, path)
        log.info("%s answers on %s", policy.site, config.socket_path)
        yield


def make_agent(config: SiteConfig, policy: Policy) -> LocalAgent:
    """The agent of a site whose rows fit.

    Raises:
        BadInput: Rows or proxy set cannot be used.
    """
    proxy = load_proxy(config)
    rows, misfits = load_rows(config, policy, proxy)
    if misfits:
        log.warning("%s", misfits)
    proxy_basis(proxy)  # computed once, so that the first answer does not wait for it
    return LocalAgent(
        run="",
        policy=policy,
        rows=rows,
        proxy=proxy,
        ledger_path=config.ledger_path,
        receipts_path=config.receipts_path,
        key=config.key_path,
        new_ledger=False,
        approvals=Approvals(config.approvals_path),
    )


def _open(agent: LocalAgent) -> None:
    """Open the ledger on the thread that uses it; a site that could not charge does not start."""
    agent.__enter__()
    with agent.ledger() as ledger:
        left = ledger.remaining(agent.policy.total_epsilon, agent.policy.delta)
    log.info(
        "%s, population %s: epsilon %.4g left", agent.policy.site, agent.policy.population, left
    )


def _make_folder(folder: Path) -> None:
    """The folder of the courier's socket: closed to all but its owner and its group."""
    try:
        folder.mkdir(mode=COURIER_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"socket-path: folder {folder} cannot be made: {error.strerror}") from error
    mode = folder.stat().st_mode & 0o777
    if mode & ~COURIER_FOLDER_MODE:
        raise BadInput(
            f"socket-path: folder {folder} has mode {mode:04o} and must have at most "
            f"{COURIER_FOLDER_MODE:04o}, or anybody here could ask: run chmod 750 '{folder}'"
        )


@contextmanager
def _locked(field: str, path: Path) -> Iterator[None]:
    """Hold a lock beside `path`; the kernel releases it with the process, however that ends."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadInput(f"{field}: {lock} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFailed(
            f"{field}={str(path)!r} is in use by another agent: stop that one first, or give this "
            "one paths of its own"
        ) from error
    else:
        yield
    finally:
        os.close(descriptor)


def _listen(server: grpc.Server, path: Path, mode: int) -> None:
    """Bind the socket with its mode from the first moment on; one that was left behind goes."""
    path.unlink(missing_ok=True)
    before = os.umask(0o777 & ~mode)
    try:
        server.add_secure_port(
            f"unix:{path}", grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
        )
        server.start()
    except RuntimeError as error:
        raise RunFailed(f"{path} cannot be listened on: {error}") from error
    finally:
        os.umask(before)


def _finish(server: grpc.Server, path: Path) -> None:
    server.stop(_SECONDS_TO_FINISH).wait()
    path.unlink(missing_ok=True)
