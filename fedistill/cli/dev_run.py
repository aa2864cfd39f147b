"""`fedistill dev run` and `status`: a run of a federation on this machine, and what it runs on."""

import fcntl
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from rich.console import Console

from fedistill.cli.application import Application, load_application
from fedistill.cli.dev_folder import DevFolder, Mark, living, read_mark
from fedistill.cli.dev_services import environment_of
from fedistill.cli.progress import Failed, Finished, ProgressFile, Step, open_display
from fedistill.cli.simulate import last_words
from fedistill.errors import BadInput, RunFailed
from fedistill.evaluate.summary import read_summary
from fedistill.evaluate.table import print_summary

_REFRESH = 0.2
_LOG = "run"


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """A service of the federation as it is now.

    Attributes:
        name: Of the service.
        pid: Of its process; None where there is none.
        rss: Bytes of memory that the process has, those that it started left out.
        log: What it printed.
    """

    name: str
    pid: int | None
    rss: int
    log: str


def states(folder: DevFolder) -> list[ServiceState]:
    """Every service, whether it runs or not.

    Raises:
        BadInput: The folder has no federation.
    """
    mark = read_mark(folder)
    found = []
    for name, process in living(folder, mark).items():
        rss = process.memory_info().rss if process else 0
        log = str(folder.log(name))
        found.append(
            ServiceState(name=name, pid=process.pid if process else None, rss=rss, log=log)
        )
    return found


def check_all_run(folder: DevFolder, services: Sequence[ServiceState]) -> None:
    """Refuse a federation that has ended in part.

    Raises:
        RunFailed: Names the services that do not run.
    """
    if ended := [each.name for each in services if each.pid is None]:
        raise RunFailed(
            f"{', '.join(ended)} must run: type {folder.order('down')}, then {folder.order('up')}"
        )


def run(folder: DevFolder, overrides: Sequence[str], console: Console, *, plain: bool) -> None:
    """Submit the app by `flwr run`, show how far it has come, print the result.

    Raises:
        BadInput: The folder has no federation, or a key cannot be used.
        RunFailed: A service has ended, another run is under way, or the run failed.
    """
    mark = read_mark(folder)
    check_all_run(folder, states(folder))
    application = load_application(folder.app, overrides)
    with _alone(folder):
        end = _follow(folder, mark, application, console, plain=plain)
    if isinstance(end, Finished):
        summary = read_summary(end.run_dir / "summary.json")
        print_summary(summary, report=end.run_dir / "report.html", console=console)
        return
    if not folder.mark.exists():
        raise RunFailed(f"{folder.path} was removed during the run: fedistill dev down?")
    reason = end.reason if end else f"Flower gave no result: {last_words(folder.log(_LOG))}"
    sentence = f"{' '.join(reason.split())} (logs: {folder.log(_LOG).parent})"
    if end is not None and end.exit_code == BadInput.exit_code:
        raise BadInput(sentence)
    raise RunFailed(sentence)


def _follow(
    folder: DevFolder, mark: Mark, application: Application, console: Console, *, plain: bool
) -> Finished | Failed | None:
    """Show the run's steps until `flwr run --stream` ends: the workflow's last line."""
    command = [
        str(Path(sysconfig.get_path("scripts")) / "flwr"),
        "run",
        str(folder.app),
        "--stream",
    ]
    if application.overrides:
        changes = folder.path / "run" / "overrides.toml"
        changes.write_text(tomli_w.dumps(application.overrides), encoding="utf-8")
        command += ["--run-config", str(changes)]
    lines = ProgressFile(folder.progress)
    for _ in lines.read():
        pass  # of earlier runs
    end: Finished | Failed | None = None
    with folder.log(_LOG).open("wb") as log, open_display(console, plain=plain) as display:
        flwr = subprocess.Popen(  # noqa: S603
            command,
            env=environment_of(folder, mark),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        display.show(Step(phase="start", done=0, total=0, message="submitting the run"))
        try:
            ended = False
            while not ended:
                ended = _ended(flwr)
                for line in lines.read():
                    if isinstance(line, Step):
                        display.show(line)
                    else:
                        end = line
        except KeyboardInterrupt:
            raise RunFailed(
                f"interrupted: the SuperLink goes on with the run, until {folder.order('down')}"
            ) from None
        finally:
            flwr.terminate()
            flwr.wait()
        if isinstance(end, Finished):
            display.finish()
    return end


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_REFRESH)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def _alone(folder: DevFolder) -> Iterator[None]:
    """One run at a time: progress of two would be in one file."""
    with (folder.path / "run" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFailed(
                f"{folder.path} has a run under way by fedistill dev run: wait for its end"
            ) from None
        yield
