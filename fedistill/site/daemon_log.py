"""The agent's two logs: lines on stderr that its operators may collect, and a private file.

What could quote a row goes to the private file alone: misfits, tracebacks, errors of private code,
warnings of libraries. It is the owner's, mode 0600. No line on stderr quotes a row, at any level,
but seconds depend on how many rows there are: both logs stay with the site (PRIVACY rules 1, 3).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fedistill.errors import BadInput, FedistillError, Refusal, SecAggError
from fedistill.log_lines import JsonLines, LogFormat, TextLines

LARGEST_PRIVATE_LOG = 4 << 20
"""Bytes; then the file is renamed to `.1`, and the one before it goes."""

_PUBLIC_MODULES = ("fedistill.site.", "fedistill.privacy.", "fedistill.secagg.")

private = logging.getLogger("fedistill-private")
private.propagate = False
private.addHandler(logging.NullHandler())  # else Python prints what nobody handles to stderr


def log_to_stderr(form: LogFormat = LogFormat.TEXT, level: int = logging.INFO) -> None:
    """Send the agent's own lines to stderr, from `level` on."""
    handler = logging.StreamHandler()
    if form is LogFormat.JSON:
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(TextLines(journal="JOURNAL_STREAM" in os.environ))
    logger = logging.getLogger("fedistill")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


class _OwnersFile(RotatingFileHandler):
    """Mode 0600 from the first byte on, also of the files that come after the first."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


@contextmanager
def private_log(path: Path) -> Iterator[None]:
    """Keep what may quote rows, and what libraries log, in the file at `path` alone.

    Raises:
        BadInput: It cannot be written.
    """
    try:
        handler = _OwnersFile(path, maxBytes=LARGEST_PRIVATE_LOG, backupCount=1)
        path.chmod(0o600)
    except OSError as error:
        raise BadInput(
            f"private-log-path={str(path)!r} must be a file that can be written: {error.strerror}"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = private, logging.getLogger()
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def public_words(error: Exception) -> str:
    """What a line on stderr may say of `error`: its text only where no row can be in it.

    Policy, budget, ledger and protocol speak of public values. All else, an extension's refusal
    too, is named by its class.
    """
    name = type(error).__name__
    if not isinstance(error, Refusal | SecAggError) or not _raised_by_us(error):
        name = name if isinstance(error, FedistillError) else "an error of private code"
        return f"{name}; the private log has its text"
    return f"{name}: {error}"


def _raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(module).startswith(_PUBLIC_MODULES)
