"""Progress of a run: lines in Flower's log, and JSON lines for whoever draws bars."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from flwr.common.logger import FLOWER_LOGGER, console_handler, log

from fedistill.log_lines import JsonLines, fields

VARIABLE = "FEDISTILL_PROGRESS"
"""Environment variable that names the file to append JSON lines to."""

CLAIMED = "run folder: "
"""Begins the line of a run that has a folder, and can be gone on with from now on."""

ENDED = "ended without a result, exit code "
"""Begins the line of a workflow that gave up by itself; the code and the reason follow."""

_INFO = 20
_WARNING = 30
_ERROR = 40
_BAR = 24
_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Tells how far a run has come. `step` is cheap enough for every training step.

    Attributes:
        seconds: Of each phase that ended.
    """

    def __init__(self) -> None:
        path = os.environ.get(VARIABLE)
        self._path = Path(path) if path else None
        self._phase = ""
        self._last_line = 0.0
        self._json = False
        self.seconds: dict[str, float] = {}

    def in_json(self, run: str) -> None:
        """From now on Flower's log is JSON lines, each with the name of the run."""
        handler = logging.StreamHandler(sys.stdout)  # Flower's copy, which `flwr log` shows
        handler.setFormatter(JsonLines())
        handler.setLevel(console_handler.level)
        handler.addFilter(_Named(run))
        FLOWER_LOGGER.handlers[:] = [handler]
        self._json = True

    def step(self, phase: str, done: int, total: int, message: str = "") -> None:
        """`phase` has come as far as `done` of `total`; 0 of 0 where no one can tell."""
        now = time.monotonic()
        first, last = phase != self._phase, done == total
        if not (first or last or now - self._last_line > _SECONDS_BETWEEN_LINES):
            if self._path is None or done % max(total // 100, 1):
                return
        else:
            self._phase, self._last_line = phase, now
            how_far = f"{done} of {total}" if self._json else _bar(done, total)
            what = fields("progress", phase=phase)
            log(_INFO, "%-12s %s %s", phase, how_far, message, extra=what)
        self._write({"phase": phase, "done": done, "total": total, "message": message})

    def ended(self, phase: str, seconds: float) -> None:
        """A phase, or a round of it, ended after `seconds`."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        what = fields("phase", phase=phase, seconds=round(seconds, 3))
        log(_INFO, "%-12s took %.1f seconds", phase, seconds, extra=what)

    def say(self, text: str) -> None:
        """Lines for the log of the run."""
        for line in text.splitlines():
            log(_INFO, "%s", line)

    def warn(self, message: str) -> None:
        """Something that the reader of the result must know."""
        log(_WARNING, "%s", message, extra=fields("warning"))

    def finished(self, run_dir: Path, **figures: Any) -> None:
        """The results lie in `run_dir`; `figures` are fields of a line in JSON."""
        if self._json:
            log(_INFO, "%s", run_dir, extra=fields("finished", **figures))
        self._write({"phase": "finished", "run_dir": str(run_dir)})

    def failed(self, reason: str, exit_code: int, run_dir: Path | None) -> None:
        """The run ended without a result."""
        why = " ".join(reason.split())
        log(_ERROR, "%s%d: %s", ENDED, exit_code, why, extra=fields("failed"))
        end = {"phase": "failed", "reason": reason, "exit_code": exit_code}
        self._write(end | ({"run_dir": str(run_dir)} if run_dir else {}))

    def _write(self, line: dict[str, object]) -> None:
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line | {"time": time.time()}) + "\n")


class _Named(logging.Filter):
    """Adds the run's name to every line."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self._run = run

    def filter(self, record: logging.LogRecord) -> bool:
        """Name the run, and keep the line."""
        record.run = self._run
        return True


def _bar(done: int, total: int) -> str:
    if total == 0:
        return " " * (_BAR + 8)
    filled = _BAR * done // total
    return f"{'━' * filled}{'╌' * (_BAR - filled)} {100 * done // total:3d}%   "
