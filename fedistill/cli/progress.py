"""Live progress of a run, read from the JSON lines that its workflow appends to a file."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

PLAIN_INTERVAL = 5.0  # seconds between two plain lines of one phase


@dataclass(frozen=True, kw_only=True)
class Step:
    """A phase has come as far as `done` of `total`; `total` is 0 where no one can tell."""

    phase: str
    done: int
    total: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The workflow wrote its results to `run_dir`."""

    run_dir: Path


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The workflow gave up; `run_dir` holds what it got done, if it came that far."""

    reason: str
    exit_code: int
    run_dir: Path | None


Line = Step | Finished | Failed


class ProgressFile:
    """Yields the complete lines that were appended since it was last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Line]:
        """New lines, oldest first; a line that is still being written comes next time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield _parse(json.loads(line))


def _parse(line: dict[str, Any]) -> Line:
    run_dir = Path(line["run_dir"]) if line.get("run_dir") else None
    if line["phase"] == "finished" and run_dir:
        return Finished(run_dir=run_dir)
    if line["phase"] == "failed":
        return Failed(reason=line["reason"], exit_code=line.get("exit_code", 1), run_dir=run_dir)
    return Step(
        phase=line["phase"],
        done=line.get("done") or 0,
        total=line.get("total") or 0,
        message=line.get("message", ""),
    )


class Display(Protocol):
    """Shows the steps of a run as they come; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, step: Step) -> None:
        """Show one step."""

    def finish(self) -> None:
        """Show that all phases are done."""


def open_display(console: Console, *, plain: bool) -> Display:
    """Bars on a terminal; lines elsewhere, or when asked for."""
    return Lines(console) if plain or not console.is_terminal else Bars(console)


class Bars:
    """One Rich progress bar a phase."""

    def __init__(self, console: Console) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[message]}"),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, step: Step) -> None:
        """Move the bar of the step's phase; a new phase completes those before it."""
        if step.phase not in self._tasks:
            self.finish()
            self._tasks[step.phase] = self._progress.add_task(
                step.phase, total=step.total or None, message=step.message
            )
        self._progress.update(
            self._tasks[step.phase],
            completed=step.done,
            total=step.total or None,
            message=step.message,
        )

    def finish(self) -> None:
        """Complete the bars."""
        for task in self._progress.tasks:
            total = task.total or task.completed or 1
            self._progress.update(task.id, total=total, completed=total)


class Lines:
    """One line a step, and no more than one in `PLAIN_INTERVAL` seconds within a phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def show(self, step: Step) -> None:
        """Print the step, unless one of its phase was printed just now."""
        now = time.monotonic()
        news = step.phase != self._phase or 0 < step.total <= step.done
        if not news and now - self._printed < PLAIN_INTERVAL:
            return
        self._phase, self._printed = step.phase, now
        count = f" {step.done}/{step.total}" if step.total else ""
        line = f"{step.phase}{count} {step.message}".rstrip()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """Print nothing: the result follows."""
