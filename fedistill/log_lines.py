"""Log lines for machines: one JSON object a line, with the same keys at the agent and the server.

No formatter here prints an exception's text or traceback, whoever logs it: both may quote a row.
"""

import json
import logging
import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from fedistill.errors import ConfigError

VARIABLE = "FEDISTILL_LOG_FORMAT"
"""Environment variable of the server's log format; the agent has an option for its own."""

FIELDS = ("site", "run", "phase", "seconds", "bytes", "epsilon")
"""Keys of a line beside `time`, `level`, `event` and `message`; those that apply are there."""

_PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Syslog's, which journald takes from the start of a line."""


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class JsonLines(logging.Formatter):
    """`{"time": ..., "level": ..., "event": ..., ..., "message": ...}` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without anything of an exception."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            **{key: vars(record)[key] for key in FIELDS if key in vars(record)},
            "message": record.getMessage(),
        }
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Sentences with times, or with journald's priorities; without anything of an exception."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = " ".join(record.getMessage().split())
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{message}"
        return f"{self.formatTime(record)} {record.levelname} {message}"


def fields(event: str, **values: Any) -> dict[str, Any]:
    """What a call of a logger takes as `extra`; None is left out."""
    return {"event": event} | {key: value for key, value in values.items() if value is not None}


def format_from_environment() -> LogFormat:
    """The format that `$FEDISTILL_LOG_FORMAT` names; text where it is not set.

    Raises:
        ConfigError: It names none.
    """
    name = os.environ.get(VARIABLE) or LogFormat.TEXT
    try:
        return LogFormat(name)
    except ValueError:
        raise ConfigError(
            f"{VARIABLE}={name!r} must be one of {', '.join(LogFormat)}: correct it where the "
            "server is started"
        ) from None
