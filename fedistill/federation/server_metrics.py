"""Metrics of a coordinator's runs, in a file for node_exporter's textfile collector.

A ServerApp lives as long as its run, minutes, so nobody could scrape it: it leaves the file, and
the collector serves what the last run left. Everything in it the server knows anyway: sizes and
times of its own phases, who answered, and the epsilon that the run config asked for, which no row
moves.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Metric, write_to_textfile
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fedistill.evaluate.summary import Summary

VARIABLE = "FEDISTILL_METRICS_FOLDER"
"""Environment variable of the folder that node_exporter's textfile collector reads."""

FILE = "fedistill_server.prom"
OUTCOMES = ("finished", "failed")

_RUNS = "fedistill_server_runs"


def leave_metrics(seconds: Mapping[str, float], summary: Summary | None = None) -> None:
    """Replace the metrics of the last run by this one's, and count it.

    Does nothing where the environment names no folder.

    Args:
        seconds: Of each phase that ended.
        summary: Of a run that finished.

    Raises:
        OSError: The file cannot be written.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    path = Path(folder) / FILE
    with _alone(path):
        registry = CollectorRegistry()
        _count(registry, _counted(path), OUTCOMES[0] if summary else OUTCOMES[1])
        _last_run(registry, seconds)
        if summary is not None:
            _by_site(registry, summary)
        write_to_textfile(str(path), registry)
        path.chmod(0o644)  # node_exporter is another user


def _count(registry: CollectorRegistry, counted: Mapping[str, float], outcome: str) -> None:
    runs = CounterMetricFamily(_RUNS, "Runs that ended", labels=["outcome"])
    for each in OUTCOMES:
        runs.add_metric([each], counted.get(each, 0.0) + (each == outcome))
    registry.register(_Counted(runs))
    ended = _gauge(registry, "end_timestamp_seconds", "When the last run ended, since 1970")
    ended.set(time.time())
    succeeded = _gauge(registry, "succeeded", "Whether the last run left a student")
    succeeded.set(outcome == OUTCOMES[0])


def _last_run(registry: CollectorRegistry, seconds: Mapping[str, float]) -> None:
    gauge = _gauge(registry, "phase_seconds", "Seconds of a phase of the last run", "phase")
    for phase, spent in seconds.items():
        gauge.labels(phase).set(spent)


def _by_site(registry: CollectorRegistry, summary: Summary) -> None:
    answered = _gauge(registry, "site_answered", "Whether the site is in the target", "site")
    received = _gauge(registry, "received_bytes", "Bytes that came from the site", "site")
    sent = _gauge(registry, "sent_bytes", "Bytes that went to the site", "site")
    epsilon = _gauge(
        registry, "epsilon_asked", "What the run asked the site to pay at most, at delta", "site"
    )
    delta = _gauge(registry, "delta", "The delta of the epsilons")
    for site in sorted({*summary.left_out, *summary.privacy.sites}):
        answered.labels(site).set(site in summary.privacy.sites)
    for site, wire in summary.wire.sites.items():
        received.labels(site).set(wire.bytes_up + wire.bytes_evaluation)
        sent.labels(site).set(wire.bytes_down)
    for site, paid in summary.privacy.sites.items():
        epsilon.labels(site).set(float("inf") if paid.epsilon is None else paid.epsilon)
        delta.set(paid.delta)


def _gauge(registry: CollectorRegistry, name: str, what: str, *labels: str) -> Gauge:
    return Gauge(f"fedistill_server_last_run_{name}", what, labels, registry=registry)


def _counted(path: Path) -> dict[str, float]:
    """Runs so far by outcome; a file that cannot be understood begins anew, as counters may."""
    try:
        families = list(text_string_to_metric_families(path.read_text()))
    except (OSError, ValueError):
        return {}
    return {
        sample.labels["outcome"]: sample.value
        for family in families
        for sample in family.samples
        if family.name == _RUNS and sample.name == f"{_RUNS}_total"
    }


@dataclass(frozen=True, eq=False)  # a registry wants a hash
class _Counted(Collector):
    """A counter that began in an earlier process, and so does not say that it began now."""

    runs: CounterMetricFamily

    def collect(self) -> Iterator[Metric]:
        """The counter."""
        yield self.runs


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two runs that end at once both count."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
