"""A simulated site's own log, which never leaves it: what its owner must know and nobody else."""

import logging
from functools import partial
from pathlib import Path

from fedistill.errors import FedistillError

SITE_LOG = "site.log"


def log_error(folder: Path, error: Exception) -> None:
    """Append an error; one that nobody raised on purpose comes with its traceback."""
    expected = isinstance(error, FedistillError)
    trace = None if expected else (type(error), error, error.__traceback__)
    _append(folder, logging.ERROR, f"{type(error).__name__}: {error}", trace)


def log_warning(folder: Path, message: str) -> None:
    """Append what the owner should look into."""
    _append(folder, logging.WARNING, message)


def _append(folder: Path, level: int, message: str, trace: object = None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / SITE_LOG)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        record = partial(logging.LogRecord, "fedistill.site", level, __file__, 0)
        handler.emit(record(message, (), trace))  # type: ignore[arg-type]
        handler.close()
    except OSError:
        # A full disk must not turn a private message into a public one.
        return
