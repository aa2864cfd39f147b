from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from flwr.app import RecordDict

from fedistill.config import RunConfig
from fedistill.distill import training
from fedistill.distill.trainer import Recipe
from fedistill.evaluate.summary import Summary
from fedistill.federation.client_app import app
from fedistill.federation.countersigning import Countersigner
from fedistill.federation.local_grid import LocalGrid
from fedistill.federation.progress import Progress
from fedistill.federation.run_folder import countersign_dir, run_folder
from fedistill.federation.simulation import Simulation, questions_of
from fedistill.federation.up_front import prepare
from fedistill.federation.workflow import Run, run_workflow
from tests.small import make_config


class Spy(LocalGrid):
    """A LocalGrid that keeps every reply, and lets a test tamper with what sites see or say."""

    def __init__(self, config: RunConfig, *, num_nodes: int = 2) -> None:
        super().__init__(app, config.to_flat(), num_nodes=num_nodes)
        self.replies: list[tuple[str, RecordDict]] = []
        self.silent: set[str] = set()
        self.silent_at: set[tuple[str, str]] = set()
        self.silent_after: dict[tuple[str, str], int] = {}
        self.tamper = lambda action, content: content

    def pull_messages(self, message_ids):
        pulled = []
        for message_id in list(message_ids):
            waiting = self._waiting.get(message_id)
            if waiting is None:
                continue
            action = waiting.metadata.message_type
            records = waiting.content.config_records
            site = records.get("question", records.get("step", {})).get("site")
            if site in self.silent or self._is_silent(action, site):
                continue
            (reply,) = super().pull_messages([message_id])
            if reply.has_content():
                self.replies.append((action, reply.content))
                reply.content = self.tamper(action, reply.content)
            pulled.append(reply)
        return pulled

    def _is_silent(self, action: str, site: str) -> bool:
        """Whether the site does not answer this: at all, or after so many answers to its like."""
        if (action, site) in self.silent_after:
            answered = sum(
                content.config_records.get("reply", {}).get("site") == site
                for past, content in self.replies
                if past == action
            )
            return answered >= self.silent_after[action, site]
        return (action, site) in self.silent_at


@pytest.fixture
def quick(monkeypatch):
    """Train shortly: these tests are about the workflow, not about the student."""
    short = Recipe(epochs=1, steps=60)
    monkeypatch.setattr(training, "train_student", partial(training.train_student, recipe=short))


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return make_config(tmp_path, prune_ratio=0.0, quantize="none", phase_timeout=3.0)


def run(config: RunConfig, grid: LocalGrid | None = None, *, name: str = "1") -> Summary:
    return run_workflow(
        grid or Spy(config),
        config,
        prepare(config),
        run_folder(config, name),
        run=name,
        progress=Progress(),
    )


def server_of(config: RunConfig) -> Countersigner:
    """The server that signs for the run named "1": policies pin its key once a run made it."""
    return Countersigner.open(countersign_dir(config, run_folder(config, "1")))


def make_run(config: RunConfig, grid: LocalGrid, simulation: Simulation) -> Run:
    """The run named "1", for tests that take some of its phases only."""
    server = server_of(config)
    return Run(
        name="1",
        grid=grid,
        config=config,
        public=simulation,
        folder=run_folder(config, "1"),
        progress=Progress(),
        questions={
            site: replace(question, server_key=server.key.public)
            for site, question in questions_of(config, simulation).items()
        },
        countersigner=server,
        started=datetime.now(UTC),
    )
