"""The Flower ServerApp: one function that runs the workflow and tells how it ended."""

from functools import partial

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from fedistill.config import RunConfig
from fedistill.errors import FedistillError
from fedistill.evaluate.summary import Summary, read_summary
from fedistill.evaluate.table import print_summary
from fedistill.federation.data_summary import describe, describe_public
from fedistill.federation.progress import Progress
from fedistill.federation.public import Public
from fedistill.federation.run_folder import RunFolder, check_resumed, run_folder
from fedistill.federation.server_metrics import VARIABLE, leave_metrics
from fedistill.federation.up_front import prepare, prepare_deployment
from fedistill.federation.workflow import run_workflow
from fedistill.log_lines import LogFormat, format_from_environment

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run config asks for."""
    progress = Progress()
    folder: RunFolder | None = None
    try:
        as_json = format_from_environment() is LogFormat.JSON
        if as_json:
            progress.in_json(str(context.run_id))
        config = RunConfig.from_flat(context.run_config)
        folder = run_folder(config, str(context.run_id))
        summary = _run(grid, config, folder, run=str(context.run_id), progress=progress)
    except (httpx.HTTPError, ConnectionError):
        raise  # the SuperLink is gone: the run died, and may be gone on with
    except Exception as error:
        known = isinstance(error, FedistillError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        kind = type(error) if isinstance(error, FedistillError) else FedistillError
        progress.failed(
            reason,
            kind.exit_code,
            folder.path if folder and folder.path.is_dir() else None,
        )
        _leave_metrics(progress)
        raise
    _leave_metrics(progress, summary)
    if not as_json:
        print_summary(summary, report=folder.report, console=Console(width=100))
    progress.finished(folder.path, bytes=_bytes(summary), epsilon=_epsilon(summary))


def _run(
    grid: Grid, config: RunConfig, folder: RunFolder, *, run: str, progress: Progress
) -> Summary:
    """The workflow, unless a run that is gone on with turns out to have finished."""
    if config.resume and check_resumed(folder, config):
        progress.say(f"run {config.resume} has finished already: here is its result")
        return read_summary(folder.summary)
    public: Public
    if config.proxy_path:
        public = prepare_deployment(config)
        progress.say(describe_public(public))
    else:
        public = prepare(config, partial(progress.step, "encoder"))
        progress.say(describe(public))
    with folder.alone():
        return run_workflow(grid, config, public, folder, run=run, progress=progress)


def _leave_metrics(progress: Progress, summary: Summary | None = None) -> None:
    """A folder of metrics that cannot be written must not cost the run its result."""
    try:
        leave_metrics(progress.seconds, summary)
    except OSError as error:
        progress.warn(f"{VARIABLE}: the metrics cannot be written: {error.strerror}: make room")


def _bytes(summary: Summary) -> int:
    """All that crossed the wire."""
    return sum(
        each.bytes_up + each.bytes_down + each.bytes_evaluation
        for each in summary.wire.sites.values()
    )


def _epsilon(summary: Summary) -> float | None:
    """The most that a site was asked to pay; None where no bound is finite."""
    epsilons = [each.epsilon for each in summary.privacy.sites.values()]
    return max((each for each in epsilons if each is not None), default=None)
