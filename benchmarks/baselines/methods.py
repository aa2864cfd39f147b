"""The methods that are not FedAvg: ours, each site alone, and boosting on pooled rows."""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.baselines.inputs import run_config
from benchmarks.baselines.rows import CENTRAL, LOCAL, OURS, Result, Row
from fedistill.distill.target import build_ensemble
from fedistill.evaluate.metrics import auc
from fedistill.evaluate.reference import central_reference
from fedistill.features import proxy_basis
from fedistill.federation.client_app import app
from fedistill.federation.local_grid import LocalGrid
from fedistill.federation.progress import Progress
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import ROWS_AT_LEAST, prepare_data, question_of
from fedistill.federation.up_front import prepare
from fedistill.federation.workflow import run_workflow
from fedistill.labels import probabilities
from fedistill.mechanisms import mechanism_named


def ours(row: Row, table: Path) -> Result:
    """The whole workflow, from the sites' answers to the shipped file and its report."""
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(table, epsilon=row.epsilon, seed=row.seed, output_dir=f"{folder}/run")
        simulation = prepare(config)
        proxy_basis(simulation.proxy)
        start = time.monotonic()
        summary = run_workflow(
            LocalGrid(app, config.to_flat()),
            config,
            simulation,
            run_folder(config, "1"),
            run="1",
            progress=Progress(),
        )
        seconds = time.monotonic() - start
    stage = summary.shipped_stage
    return Result(
        row=row,
        auc=summary.metrics.student.auc or 0.5,
        target=summary.metrics.ensemble.auc or 0.5,
        split_error=summary.metrics.student.auc_standard_error,
        shipped=stage.stage if stage else "",
        bytes_up=max(site.bytes_up for site in summary.wire.sites.values()),
        seconds=seconds,
    )


def local_only(row: Row, table: Path) -> Result:
    """Each site's own release of the same cost, denoised alone; the mean over sites."""
    config = run_config(table, epsilon=row.epsilon)
    simulation = prepare_data(config)
    question, proxy, test = question_of(config, simulation), simulation.proxy, simulation.test
    mechanism, basis = mechanism_named(config.mechanism), proxy_basis(simulation.proxy)
    plan = mechanism.plan(question, proxy, rows_at_least=ROWS_AT_LEAST)
    start = time.monotonic()
    scores = []
    for rows in simulation.sites.values():
        release, _ = mechanism.release(rows, proxy, plan)
        alone = build_ensemble([release], [mechanism.response(question, release, proxy)], basis)
        scores.append(auc(probabilities(alone.label(test.rows)), test.labels) or 0.5)
    seconds = (time.monotonic() - start) / len(scores)
    return Result(row=row, auc=float(np.mean(scores)), seconds=seconds)


def central(row: Row, table: Path) -> Result:
    """Gradient boosting on the pooled rows of all sites, not private."""
    simulation = prepare_data(run_config(table))
    sites, test = simulation.sites.values(), simulation.test
    start = time.monotonic()
    answers = central_reference(
        np.concatenate([site.rows for site in sites]),
        np.concatenate([site.labels for site in sites]),
        test.rows,
        num_classes=test.num_classes,
        schema=simulation.proxy.schema,
    )
    seconds = time.monotonic() - start
    return Result(row=row, auc=auc(answers, test.labels) or 0.5, seconds=seconds)


METHODS = {OURS: ours, LOCAL: local_only, CENTRAL: central}
