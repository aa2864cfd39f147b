"""The Flower ServerApp: one function that runs the workflow and tells how it ended."""

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
from fedistill.federation.up_front import prepare, prepare_deployment
from fedistill.federation.workflow import run_workflow

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run config asks for."""
    progress = Progress()
    folder: RunFolder | None = None
    try:
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
        raise
    print_summary(summary, report=folder.report, console=Console(width=100))
    progress.finished(folder.path)


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
        public = prepare(config)
        progress.say(describe(public))
    with folder.alone():
        return run_workflow(grid, config, public, folder, run=run, progress=progress)
