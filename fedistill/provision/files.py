"""Files of provisioning, whole or not there, private ones with mode 0600; and bounded reads."""

import os
import secrets
import stat
from pathlib import Path

from fedistill.errors import ProvisionError

PRIVATE, PUBLIC = 0o600, 0o644
PRIVATE_FOLDER = 0o700


def make_folder(path: Path) -> None:
    """A folder of its owner alone; one that is there stays as it is.

    Raises:
        ProvisionError: it cannot be made.
    """
    try:
        path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error


def write(path: Path, content: bytes, *, mode: int = PUBLIC) -> None:
    """Write a file that is complete or not there, and never readable by more than `mode` says.

    Raises:
        ProvisionError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        try:
            file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error


def read(path: Path, what: str, *, at_most: int) -> bytes:
    """The content of a file.

    Args:
        path: The file.
        what: What it is, for the message.
        at_most: Bytes; a larger file is refused before it is read.

    Raises:
        ProvisionError: it is missing, too large, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(at_most + 1)
    except OSError as error:
        raise ProvisionError(
            f"{what} {path} cannot be read ({error.strerror}): check the path and its permissions"
        ) from error
    if len(content) > at_most:
        raise ProvisionError(
            f"{what} {path} must have at most {at_most:,} bytes: it is none that fedistill wrote, "
            "ask for it again"
        )
    return content


def read_private(path: Path, what: str, *, at_most: int) -> bytes:
    """The content of a private file, which none but its owner can read.

    Raises:
        ProvisionError: as `read`, or others may read it.
    """
    content = read(path, what, at_most=at_most)
    open_to = mode_of(path) & 0o077
    if open_to:
        raise ProvisionError(
            f"{what} {path} has mode {mode_of(path):04o}, so others than its owner can use it: "
            f"run chmod 600 '{path}'"
        )
    return content


def mode_of(path: Path) -> int:
    """Permission bits of a file that is there."""
    return stat.S_IMODE(path.stat().st_mode)


def _unwritten(path: Path, error: OSError) -> ProvisionError:
    return ProvisionError(
        f"{path} cannot be written ({error.strerror}): choose a folder that you may write to"
    )
