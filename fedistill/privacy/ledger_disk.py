"""Small files beside a ledger that are either whole or not there, readable by their owner alone."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked_directory(path: Path) -> Iterator[int]:
    """Hold the lock of a directory, against other processes that do: its file descriptor."""
    directory = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(directory)


def put_file(path: Path, content: bytes, directory: int) -> None:
    """Write a file with mode 0600; on disk when this returns. A crash leaves the old or the new.

    Args:
        path: A file in `directory`.
        content: All of it.
        directory: What `locked_directory` gave.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        os.fsync(directory)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
