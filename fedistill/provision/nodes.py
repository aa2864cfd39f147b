"""`nodes.json`, on the server: which SuperNode keys the SuperLink has, and which it had.

Apart from `registry.json`, which says what the coordinator wants and may come from another machine.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fedistill.errors import ProvisionError
from fedistill.provision import files
from fedistill.provision.project import Name, in_words
from fedistill.provision.request import SshKey

_LARGEST = 8 << 20


class Node(BaseModel):
    """A SuperNode that the SuperLink has.

    Attributes:
        site: Whose it is.
        node_id: What the SuperLink calls it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    node_id: str


class Nodes(BaseModel):
    """What `provision register` did so far.

    Attributes:
        registered: By public key.
        removed: Public keys; Flower never takes one of them again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    registered: Mapping[SshKey, Node] = {}
    removed: tuple[SshKey, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it; without a file nothing was registered.

        Raises:
            ProvisionError: it cannot be read or is none.
        """
        if not path.exists():
            return cls()
        content = files.read(path, "nodes", at_most=_LARGEST)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise ProvisionError(
                f"nodes {path}: {in_words(error)}, or restore it from a backup"
            ) from error

    def save(self, path: Path) -> None:
        """Write it, complete or not at all."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        files.write(path, text.encode(), mode=files.PRIVATE)

    def with_node(self, key: str, node: Node) -> Self:
        """With one more that the SuperLink has."""
        return self.model_copy(update={"registered": {**self.registered, key: node}})

    def without(self, key: str) -> Self:
        """With one less, which never comes back."""
        rest = {each: node for each, node in self.registered.items() if each != key}
        return self.model_copy(update={"registered": rest, "removed": (*self.removed, key)})
