"""A Grid in this process: the real ClientApp and messages, without Flower's processes.

For benchmarks and tests. Contents are serialised and parsed as on the wire, so nothing travels
that has no encoding. Replies are made when they are pulled.
"""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import NoReturn

from flwr.app import Context, Error, Message, Metadata, RecordDict, UserConfigValue
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

_APP_FAILED = 2


class LocalGrid(Grid):
    """Nodes that run `app` here, one after the other.

    Args:
        app: The ClientApp of every node.
        run_config: What the nodes see as the run config.
        num_nodes: Nodes, of ids 1 to num_nodes.
        run_id: Names the run.
    """

    def __init__(
        self,
        app: ClientApp,
        run_config: Mapping[str, UserConfigValue],
        *,
        num_nodes: int = 2,
        run_id: int = 1,
    ) -> None:
        # Flower stamps every Message with the identity of the process that makes it.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 0, 0
        self._app = app
        self._run_id = run_id
        self._waiting: dict[str, Message] = {}
        self._contexts = {
            node + 1: Context(
                run_id=run_id,
                node_id=node + 1,
                node_config={"partition-id": node, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for node in range(num_nodes)
        }

    def set_run(self, run: object) -> None:
        """Nothing to set: the run is given at construction."""

    @property
    def run(self) -> NoReturn:
        """No run information is kept."""
        raise NotImplementedError("a LocalGrid has no run information")

    def create_message(self, *_: object, **__: object) -> NoReturn:
        """Deprecated in Flower, unused here."""
        raise NotImplementedError("make a Message instead")

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self._contexts)

    def get_nodes(self) -> NoReturn:
        """Nothing is known about nodes but their ids."""
        raise NotImplementedError("use get_node_ids")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand over messages; returns their ids in order."""
        return [self._accept(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The reply to the first of `message_ids` that waits, as a node would send it."""
        for message_id in message_ids:
            if message_id in self._waiting:
                return [self._reply(self._waiting.pop(message_id))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Replies to all messages; `timeout` is not needed, nobody is far away."""
        return [self._reply(self._waiting.pop(i)) for i in self.push_messages(messages)]

    def _accept(self, message: Message) -> str:
        message_id = uuid.uuid4().hex
        metadata = Metadata(
            run_id=self._run_id,
            message_id=message_id,
            src_node_id=0,
            dst_node_id=message.metadata.dst_node_id,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=message.metadata.ttl,
            message_type=message.metadata.message_type,
        )
        self._waiting[message_id] = Message(  # type: ignore[call-overload]
            metadata=metadata, content=_over_the_wire(message.content)
        )
        return message_id

    def _reply(self, message: Message) -> Message:
        try:
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            return Message(Error(_APP_FAILED, type(error).__name__), reply_to=message)
        return Message(_over_the_wire(reply.content), reply_to=message)


def _over_the_wire(content: RecordDict) -> RecordDict:
    return recorddict_from_proto(recorddict_to_proto(content))
