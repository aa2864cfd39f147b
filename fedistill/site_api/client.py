"""The client of a site's sockets: a method call in, a message out."""

from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from fedistill.site_api import agent_pb2, agent_pb2_grpc

LARGEST_MESSAGE = 1 << 30
"""Bytes of a message that either side accepts."""

OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
)
WAITING = "waiting"
"""The status of a question that its owner has not decided on."""

_SECONDS_TO_CONNECT = 20.0

Request = agent_pb2.Question | agent_pb2.Invitation | agent_pb2.Step | agent_pb2.Scoring


class SiteClient:
    """A connection to a site's socket; a context manager.

    Args:
        socket: Path of the Unix socket.
        patience: Seconds to wait for somebody to listen there, as while the agent restarts.
    """

    def __init__(self, socket: str | Path, *, patience: float = _SECONDS_TO_CONNECT) -> None:
        self._patience = patience
        self._channel = grpc.secure_channel(
            f"unix:{socket}",
            grpc.local_channel_credentials(grpc.LocalConnectionType.UDS),
            options=OPTIONS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._channel.close()

    def hello(self) -> tuple[str, bytes]:
        """The site's name and its raw public key. Raises `grpc.RpcError` when nobody answers."""
        stub = agent_pb2_grpc.SiteAgentStub(self._channel)
        reply = stub.Hello(agent_pb2.HelloRequest(), wait_for_ready=True, timeout=self._patience)
        return reply.site, reply.identity

    def ask(self, method: str, request: Request) -> tuple[str, bytes]:
        """Status and message of the answer; it takes as long as the site computes.

        Args:
            method: Name of a method of `SiteAgent`.
            request: What it takes.

        Raises:
            grpc.RpcError: Nobody listens, or the agent ended before it answered.
        """
        self.hello()  # waits while the agent restarts: the answer itself has no deadline
        reply = getattr(agent_pb2_grpc.SiteAgentStub(self._channel), method)(request)
        return reply.status, reply.message

    def status(self) -> agent_pb2.StatusReply:
        """What the agent is doing, on the owner's socket. Raises `grpc.RpcError`."""
        stub = agent_pb2_grpc.SiteOwnerStub(self._channel)
        reply: agent_pb2.StatusReply = stub.Status(
            agent_pb2.StatusRequest(), wait_for_ready=True, timeout=self._patience
        )
        return reply
