"""Which public encoder a proxy set is seen through: part of what the set is.

An ONNX file is named by the hash of its bytes, so whoever approves the proxy set's hash approves
the file. An import path names code but does not pin it: a site's policy must allow the very path.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fedistill.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The identity of an encoder; `fedistill.features.encoders` loads and runs it.

    Attributes:
        import_path: `package.module:factory`; "" for an ONNX file.
        sha256: Hex digest of an ONNX file's bytes; "" for an import path.
        path: Where this machine keeps the ONNX file; "" where it does not. No part of the identity.
    """

    import_path: str = ""
    sha256: str = ""
    path: str = ""

    @classmethod
    def named(cls, name: str) -> "Encoder | None":
        """The encoder that the config key `encoder` names; None for "".

        Raises:
            DataError: The ONNX file cannot be read.
        """
        if not name:
            return None
        if not Path(name).is_absolute():
            return cls(import_path=name)
        return cls(sha256=hashlib.sha256(read_encoder(name)).hexdigest(), path=name)

    @classmethod
    def identified(cls, identity: str) -> "Encoder":
        """The encoder of that identity; an ONNX file's place is not known.

        Raises:
            ValueError: It is none.
        """
        kind, _, name = identity.partition(":")
        if kind == "onnx":
            return cls(sha256=name)
        if kind == "import":
            return cls(import_path=name)
        raise ValueError(f"encoder={identity!r} must start with 'onnx:' or 'import:'")

    @property
    def identity(self) -> str:
        """What enters the proxy set's hash: `onnx:<sha256>` or `import:<path>`."""
        return f"import:{self.import_path}" if self.import_path else f"onnx:{self.sha256}"

    @property
    def name(self) -> str:
        """What messages call it: the import path, the file, or its hash where it has no place."""
        return self.import_path or self.path or self.identity


def read_encoder(path: str) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        DataError: They cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"encoder={path!r} cannot be read ({error.strerror}): check the path and its "
            "permissions"
        ) from None
