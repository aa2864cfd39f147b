"""`fedistill simulate`: a run of an app in a Flower of its own, from the checks to the report."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedistill.cli import isolation
from fedistill.cli.application import load_application
from fedistill.cli.guardian import LOG, Outcome
from fedistill.cli.progress import (
    Display,
    Failed,
    Finished,
    ProgressFile,
    Step,
    open_display,
)
from fedistill.config import RunConfig
from fedistill.config_rules import SELF_SUPERVISED
from fedistill.data.description import describe_columns
from fedistill.errors import BadInput, RunFailed
from fedistill.evaluate.summary import read_summary
from fedistill.evaluate.table import print_summary
from fedistill.federation.data_summary import describe
from fedistill.federation.simulation import Simulation
from fedistill.federation.up_front import prepare

REFRESH = 0.2  # seconds


def simulate(
    directory: Path, overrides: Sequence[str], console: Console, *, plain: bool, keep: bool
) -> None:
    """Check the app and its data, run it, print the result.

    Raises:
        BadInput: Something that the user gave cannot be used. Nothing was started, or the run
            itself said so.
        RunFailed: The run failed or was interrupted. No process of it is left in any case.
    """
    application = load_application(directory, overrides)
    _say(console, describe(_prepared(application.config, console, plain=plain)))
    try:
        with isolation.start(application, keep=keep) as simulation:
            with open_display(console, plain=plain) as display:
                outcome, end = _follow(simulation, display)
            log = _save_log(simulation.log_path, end)
        if keep:
            _say(console, f"Flower's files are kept in {simulation.folder}")
    except KeyboardInterrupt as interrupt:
        raise RunFailed(
            f"interrupted by {interrupt}: the run was stopped, and no process of it is left"
        ) from None
    run_dir = _run_dir(outcome, end, log)
    summary = read_summary(run_dir / "summary.json")
    print_summary(summary, report=run_dir / "report.html", console=console)


def show_data(directory: Path, overrides: Sequence[str], console: Console) -> None:
    """Check the app and its data and print what a run would use; nothing is started or written.

    Raises:
        BadInput: Something that the user gave cannot be used.
    """
    simulation = prepare(_without_training(load_application(directory, overrides).config))
    _say(console, describe(simulation))
    table = Table(box=None, pad_edge=False, title="Columns, as the public proxy rows declare them")
    for heading in ("column", "kind", "missing", "values"):
        table.add_column(heading, justify="right" if heading == "missing" else "left")
    for column in describe_columns(simulation.proxy):
        cells = (column.name, column.kind, column.missing, column.values)
        table.add_row(*map(escape, cells))
    console.print(table)


def _prepared(config: RunConfig, console: Console, *, plain: bool) -> Simulation:
    """The data, with a bar for the encoder if the run trains one."""
    if config.encoder != SELF_SUPERVISED:
        return prepare(config)
    message = "training on the public images"
    with open_display(console, plain=plain) as display:
        return prepare(
            config,
            lambda done, total: display.show(
                Step(phase="encoder", done=done, total=total, message=message)
            ),
        )


def _without_training(config: RunConfig) -> RunConfig:
    """The config of a look at the data, which trains and writes no encoder."""
    if config.encoder != SELF_SUPERVISED:
        return config
    student = "cnn" if config.student == "encoder" else config.student
    return config.model_copy(update={"encoder": "", "student": student})


def _follow(
    simulation: isolation.Simulation, display: Display
) -> tuple[Outcome, Finished | Failed | None]:
    """Show the run's steps until it ends: Flower's outcome and the workflow's last line."""
    lines = ProgressFile(simulation.progress_path)
    end: Finished | Failed | None = None
    display.show(Step(phase="start", done=0, total=0, message="starting Flower"))
    while True:
        outcome = simulation.outcome(REFRESH)
        for line in lines.read():
            if isinstance(line, Step):
                display.show(line)
            else:
                end = line
        if isinstance(end, Finished):
            display.finish()
        if outcome is not None:
            return outcome, end


def _save_log(log: Path, end: Finished | Failed | None) -> Path:
    """Copy Flower's log to where it outlives the run's folder."""
    if end is not None and end.run_dir is not None and end.run_dir.is_dir():
        copy = end.run_dir / LOG
        try:
            shutil.copyfile(log, copy)
            return copy
        except OSError:  # a full disk, say: the reason of the run's end is more than its log
            copy.unlink(missing_ok=True)
    copy = Path(tempfile.mkdtemp(prefix="fedistill-log-")) / LOG
    shutil.copyfile(log, copy)
    return copy


def _run_dir(outcome: Outcome, end: Finished | Failed | None, log: Path) -> Path:
    """The folder of a run that succeeded; otherwise the reason in one sentence, raised."""
    if outcome.status == "finished:completed" and isinstance(end, Finished):
        return end.run_dir
    if isinstance(end, Failed):
        reason = end.reason
    elif outcome.details:
        reason = outcome.details
    elif outcome.status == "":
        reason = f"Flower did not start the run: {last_words(log)}"
    elif outcome.status == "finished:completed":
        reason = "the run ended without a result: is its serverapp fedistill's?"
    else:
        reason = f"Flower says {outcome.status}"
    sentence = f"{' '.join(reason.split())} (log: {log})"
    if isinstance(end, Failed) and end.exit_code == BadInput.exit_code:
        raise BadInput(sentence)
    raise RunFailed(sentence)


def last_words(log: Path) -> str:
    """What Flower wrote into its box of errors, else its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    words = [line.strip("│╭╮╰╯─ ") for line in lines]
    if "Error" in words:
        return " ".join(words[words.index("Error") + 1 :])
    return next((line for line in reversed(words) if line), "it printed nothing")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
