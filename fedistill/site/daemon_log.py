"""The agent's log on stderr: with priorities where journald reads it, with times elsewhere."""

import logging
import os

_PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
"""Syslog's, which journald takes from the start of a line."""


class _Journal(logging.Formatter):
    """`<6>message`; every line of a traceback has the priority of its message."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def log_to_stderr() -> None:
    """Send the agent's log to stderr, from level INFO on."""
    handler = logging.StreamHandler()
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_Journal("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("fedistill")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
