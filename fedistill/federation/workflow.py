"""The server's workflow, from the sites' answers to the report.

`run_workflow` reads from top to bottom as the journey of the data. Every phase leaves a checkpoint
in the run folder, and a run that is started again in the same folder goes on after the last one.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from flwr.serverapp import Grid

from fedistill.config import RunConfig
from fedistill.distill.target import Ensemble, build_ensemble
from fedistill.errors import FedistillError, RunFailed
from fedistill.evaluate.report import write_fronts, write_report
from fedistill.evaluate.summary import Summary, write_summary
from fedistill.features import proxy_basis
from fedistill.federation import phases, scoring
from fedistill.federation.answers import Answers, ask_for_labels, sites_to_ask
from fedistill.federation.asking import Wire
from fedistill.federation.countersigning import Countersigner, return_receipts
from fedistill.federation.disagreement import disagreements
from fedistill.federation.federated_evaluation import evaluate_federated
from fedistill.federation.learning import compression_of
from fedistill.federation.progress import CLAIMED, Progress
from fedistill.federation.public import Public
from fedistill.federation.result import summarize
from fedistill.federation.run_folder import RunFolder, countersign_dir
from fedistill.federation.simulation import Simulation, questions_of, write_policies
from fedistill.labels import LabelQuestion
from fedistill.privacy.receipts import read_receipts


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every phase needs. `warnings`, `wire` and `timings` fill up on the way."""

    name: str
    grid: Grid
    config: RunConfig
    public: Public
    folder: RunFolder
    progress: Progress
    questions: Mapping[str, LabelQuestion]
    countersigner: Countersigner
    started: datetime
    wire: Wire = field(default_factory=Wire)
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def simulation(self) -> Simulation | None:
        """All rows, in a simulation; None where sites keep theirs."""
        return self.public if isinstance(self.public, Simulation) else None

    def warn(self, message: str) -> None:
        """Tell now, and in the result."""
        self.warnings.append(message)
        self.progress.warn(message)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, all of its rounds together; a full disk ends the run with a sentence."""
        start = time.monotonic()
        try:
            yield
        except FedistillError:
            raise
        except OSError as error:
            raise RunFailed(
                f"{name}: {error.strerror}: {error.filename or self.folder.path}: make room"
            ) from error
        seconds = time.monotonic() - start
        self.timings[name] = round(self.timings.get(name, 0.0) + seconds, 3)
        self.progress.ended(name, seconds)


def run_workflow(
    grid: Grid,
    config: RunConfig,
    public: Public,
    folder: RunFolder,
    *,
    run: str,
    progress: Progress,
) -> Summary:
    """Run a federation and leave its results in `folder`.

    Raises:
        BadInput: `folder` cannot be used.
        TooFewSites: Fewer than `min-sites` answered.
        RunFailed: Another reason to end, in one sentence.
    """
    countersigner = Countersigner.open(countersign_dir(config, folder))
    this = Run(
        name=run,
        grid=grid,
        config=config,
        public=public,
        folder=folder,
        progress=progress,
        questions={
            site: replace(question, server_key=countersigner.key.public)
            for site, question in questions_of(config, public).items()
        },
        countersigner=countersigner,
        started=datetime.now(UTC),
    )
    if folder.claim(config):
        this.warn("an earlier run in this folder did not finish: going on after its last phase")
    progress.say(f"{CLAIMED}{folder.path}")

    for site, why in public.left_out.items():
        progress.warn(f"{site} takes no part: {why}")

    with this.phase("hello"):
        if config.secure_aggregation and this.simulation is not None:
            write_policies(config, this.simulation, folder)
        roster = sites_to_ask(this)
    answers = ask_for_labels(this, roster)
    with this.phase("target"):
        ensemble = average(this, answers)
    with this.phase("student"):
        student = phases.student(this, ensemble)
    with this.phase("compression"):
        compression = phases.compression(this, student, ensemble)
    with this.phase("evaluate"):
        teachers = phases.evaluate(this, roster, answers.by_site)
    with this.phase("score"):
        metrics = scoring.score_all(this, ensemble, teachers, compression)
        gains = scoring.compare_sites(this, ensemble, answers, compression)
    federated = evaluate_federated(this, roster.only(answers.sites), compression)
    metrics = metrics.model_copy(update={"federated": federated})
    return_receipts(this, roster.only(answers.sites))
    with this.phase("report"):
        # A deployed site's receipts stay with it.
        receipts = () if this.simulation is None else read_receipts(folder.receipts)
        summary = summarize(this, metrics, gains, compression, receipts, answers.sites)
        write_report(summary, [receipt.model_dump() for receipt in receipts], folder.report)
        if compression_of(config).searches:
            write_fronts(summary, folder.fronts)
        write_summary(summary, folder.summary)
    return summary


def average(this: Run, answers: Answers) -> Ensemble:
    """Weigh and average the releases, free the average of shrinkage and noise."""
    this.progress.step("target", 0, 0, f"averaging {len(answers.sites)} sites")
    ensemble = build_ensemble(
        answers.releases,
        answers.responses,
        proxy_basis(this.public.proxy),
        weights=this.config.weighting,
        trim=this.config.trim,
    )
    if answers.by_site:
        for sentence in disagreements(ensemble, list(answers.sites), this.config.weighting):
            this.warn(sentence)
    target = replace(ensemble.target, num_sites=len(answers.sites))
    return replace(ensemble, target=target)
