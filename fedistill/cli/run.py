"""`fedistill run`: a run of a deployed federation, which goes on when its server dies under it."""

import json
import re
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from fedistill.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from fedistill.cli.application import Application

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_FOR_SUPERLINK = 600.0
"""How long a SuperLink that does not answer is waited for."""

_FLOWER_ANSWERS_WITHIN = 60.0
_SUBMITTED = re.compile(r"Successfully started run (\d+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run(
    app_dir: Annotated[Path, typer.Argument(metavar="[APP_DIR]", hidden=True)] = Path(),
    federation: Annotated[str, typer.Argument(metavar="[FEDERATION]", hidden=True)] = "",
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="'KEY=VALUE ...'",
            help="Change run-config keys (`fedistill config` lists them), or a TOML file of them.",
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(metavar="RUN", help="Go on with this run, in its folder, at the same config."),
    ] = "",
    tries: Annotated[
        int, typer.Option(min=1, help="How often to submit a run whose server dies under it.")
    ] = 3,
) -> None:
    """Run a deployed federation, and go on when its server dies.

    APP_DIR is the coordinator's Flower app directory, such as server, by default the current one.
    FEDERATION is a SuperLink of $FLWR_HOME/config.toml, by default its default.

    Like `flwr run APP_DIR FEDERATION --stream`, with an exit code that tells the truth: 0 for
    success, 1 for a run that failed, 2 for bad input. A run whose ServerApp or SuperLink died is
    submitted again once the SuperLink answers, and goes on after its last finished phase: no site
    is asked, or charged, again for what is in its folder. A run that ended by itself is not.
    """
    from fedistill.cli.application import load_application  # imports Flower: half a second

    overrides = [*(config or [])]
    application = load_application(app_dir, overrides)
    if resume:
        application = _going_on(application, resume)
    if not application.config.proxy_path:
        raise BadInput(
            "proxy-path='' must name the proxy set's file for deployed sites: give it with -c, or "
            "simulate the sites with fedistill simulate"
        )
    _run_to_its_end(application, _Flower(federation), Console(), tries=tries)


@dataclass(frozen=True, kw_only=True)
class _Try:
    """How one submission of a run went.

    Attributes:
        run: Its id; "" when Flower did not take it.
        claimed: Whether it has a folder that can be gone on with.
        ended: The workflow's own reason to give up, after its exit code; None if it gave none.
        last_words: Flower's last line.
    """

    run: str
    claimed: bool
    ended: tuple[int, str] | None
    last_words: str


@dataclass(frozen=True)
class _Flower:
    """Flower's command line, for one SuperLink."""

    federation: str

    def command(self, *words: str) -> list[str]:
        """A command about this SuperLink."""
        flwr = str(Path(sysconfig.get_path("scripts")) / "flwr")
        return [flwr, *words, *([self.federation] if self.federation else [])]

    def runs(self) -> dict[str, tuple[str, str]] | None:
        """Status and details of every run by id; None while the SuperLink does not answer."""
        try:
            answer = subprocess.run(  # noqa: S603
                [*self.command("list"), "--format", "json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_FLOWER_ANSWERS_WITHIN,
                check=False,
            )
            runs = json.loads(answer.stdout)["runs"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return None
        return {str(each["run-id"]): (each["status"], each["status-details"]) for each in runs}


def _run_to_its_end(
    application: "Application", flower: _Flower, console: Console, *, tries: int
) -> None:
    """Submit the run, and again while its server dies under it.

    Raises:
        BadInput: The workflow found that something cannot be used.
        RunFailed: It failed, was stopped, or died too often.
    """
    for number in range(1, tries + 1):
        attempt = _submit(application, flower, console)
        if not attempt.run:
            raise RunFailed(f"Flower did not start the run: {attempt.last_words}")
        reason = _reason(attempt, flower, console)
        if not reason:
            return
        if attempt.claimed and not application.config.resume:
            application = _going_on(application, attempt.run)
        if number < tries:
            _say(
                console, f"run {attempt.run} died: {reason}; submitting it again, try {number + 1}"
            )
            _wait_for_superlink(flower, console)
    going_on = application.config.resume
    advice = f"go on with fedistill run --resume {going_on}" if going_on else "repeat the command"
    raise RunFailed(f"the run died {tries} times, at last so: {reason}; {advice}")


def _submit(application: "Application", flower: _Flower, console: Console) -> _Try:
    """Submit once, and print what Flower streams until it has no more to say."""
    from fedistill.federation.progress import CLAIMED, ENDED

    ended = re.compile(re.escape(ENDED) + r"(\d+): (.*)")
    this = _Try(run="", claimed=False, ended=None, last_words="it printed nothing")
    command = flower.command("run", str(application.directory))
    with _overrides(application) as path, _streaming([*command, "--stream", *path]) as lines:
        for line in lines:
            console.out(line, highlight=False)
            text = _message(_COLOURS.sub("", line))
            if found := _SUBMITTED.search(text):
                this = replace(this, run=found[1])
            if found := ended.search(text):
                this = replace(this, ended=(int(found[1]), found[2]))
            if CLAIMED in text:
                this = replace(this, claimed=True)
            if words := text.strip("│╭╮╰╯─ \n"):
                this = replace(this, last_words=words)
    return this


def _message(line: str) -> str:
    """What a line says, also where the server logs JSON."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, TypeError, KeyError):
        return line


def _reason(attempt: _Try, flower: _Flower, console: Console) -> str:
    """What the run died of; "" if it succeeded.

    Raises:
        BadInput, RunFailed: It did not die: it gave up by itself, or was stopped.
    """
    known = _wait_for_superlink(flower, console)
    while attempt.run in known and not known[attempt.run][0].startswith("finished"):
        time.sleep(SECONDS_BETWEEN_LOOKS)
        known = _wait_for_superlink(flower, console)
    status, details = known.get(attempt.run, ("lost", "the SuperLink does not know it any more"))
    if status == "finished:completed":
        return ""
    if status == "finished:stopped":
        raise RunFailed(f"run {attempt.run} was stopped")
    if attempt.ended is not None:
        code, reason = attempt.ended
        raise (BadInput if code == BadInput.exit_code else RunFailed)(reason)
    return details or f"Flower says {status}"


def _wait_for_superlink(flower: _Flower, console: Console) -> dict[str, tuple[str, str]]:
    """All runs, once the SuperLink answers.

    Raises:
        RunFailed: It did not within `SECONDS_FOR_SUPERLINK`.
    """
    deadline = time.monotonic() + SECONDS_FOR_SUPERLINK
    if (runs := flower.runs()) is None:
        _say(console, "the SuperLink does not answer: waiting for it")
    while runs is None:
        if time.monotonic() > deadline:
            raise RunFailed(
                f"the SuperLink did not answer for {SECONDS_FOR_SUPERLINK:g} s: start it, then "
                "repeat the command with --resume and the run's id"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)
        runs = flower.runs()
    return runs


def _going_on(application: "Application", run: str) -> "Application":
    """The same in the folder of an earlier run.

    Raises:
        ConfigError: No run has such an id.
    """
    from fedistill.config import RunConfig

    config = RunConfig.from_flat(application.config.to_flat() | {"resume": run})
    return replace(application, config=config, overrides=application.overrides | {"resume": run})


@contextmanager
def _overrides(application: "Application") -> Iterator[list[str]]:
    """Options that give Flower the overrides, from a file that is gone afterwards."""
    import tomli_w

    with tempfile.TemporaryDirectory(prefix="fedistill-") as folder:
        path = Path(folder) / "overrides.toml"
        path.write_text(tomli_w.dumps(application.overrides), encoding="utf-8")
        yield ["--run-config", str(path)] if application.overrides else []


@contextmanager
def _streaming(command: list[str]) -> Iterator[Iterator[str]]:
    """The lines that a command prints; it does not outlive the context.

    Raises:
        RunFailed: On Ctrl-C, which ends the stream and not the run.
    """
    process = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    output = cast(IO[str], process.stdout)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield (line.rstrip("\n") for line in output)
    except KeyboardInterrupt:
        raise RunFailed(
            "interrupted: the run itself goes on at the SuperLink; flwr list shows it, flwr stop "
            "ends it"
        ) from None
    finally:
        process.terminate()
        process.wait()
        output.close()


def _say(console: Console, text: str) -> None:
    console.print(f"fedistill: {text}", markup=False, highlight=False, soft_wrap=True)
