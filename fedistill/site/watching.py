"""What an operator sees of an agent: a log line, metrics and counts for every answer and refusal.

Adjacency, sensitivity and output law do not arise: nothing here leaves the site, and the owner may
see all of it. Epsilons are functions of the questions that were charged and of the policy, never of
a row. Seconds do depend on the number of rows, so metrics are for the owner, not the coordinator.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    start_http_server,
)

from fedistill.errors import FedistillError
from fedistill.log_lines import fields
from fedistill.site.daemon_log import private, public_words
from fedistill.site.policy import Policy

LAST_STEPS = ("labels", "unmask")
"""Methods whose answer ends what a run asked in one round."""

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800)

log = logging.getLogger("fedistill.site")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What happened since the agent started; times in seconds since 1970, 0 for never."""

    answers: int = 0
    refusals: int = 0
    rounds: int = 0
    last_answer: float = 0.0


class Watch:
    """Log lines, metrics and counts of one agent; for many threads.

    Labels of metrics are names of methods and public classes only: no run, no question, or a
    server could fill the memory of whoever collects them.
    """

    def __init__(self, policy: Policy) -> None:
        self.registry = CollectorRegistry()
        self.counts = Counts()
        self._site, self._lock = policy.site, threading.Lock()
        metrics = _Metrics(self.registry)
        metrics.info.info({"site": policy.site})
        metrics.started.set_to_current_time()
        metrics.budget.set(policy.total_epsilon)
        metrics.delta.set(policy.delta)
        self._metrics = metrics

    def answered(self, method: str, run: str, *, seconds: float, num_bytes: int) -> None:
        """A question was answered with `num_bytes`, after `seconds` of its own work."""
        epsilon = self._metrics.spent_so_far
        log.info(
            "%s of run %s: answered, %s bytes",
            *(method, run, f"{num_bytes:,}"),
            extra=fields("answered", **self._about(method, run, seconds), bytes=num_bytes)
            | ({} if epsilon is None else {"epsilon": epsilon}),
        )
        self._metrics.answers.labels(method).inc()
        self._metrics.sent.labels(method).inc(num_bytes)
        self._metrics.seconds.labels(method).observe(seconds)
        self._metrics.last_answer.set_to_current_time()
        self._count(answers=1, rounds=int(method in LAST_STEPS), last_answer=time.time())
        if method in LAST_STEPS:
            self._metrics.rounds.inc()

    def refused(self, method: str, run: str, error: Exception, *, seconds: float) -> None:
        """A question was not answered. The text that may quote a row goes to the private log."""
        known = isinstance(error, FedistillError)
        public = error.public_class if isinstance(error, FedistillError) else "no-answer"
        log.log(
            logging.WARNING if known else logging.ERROR,
            "%s of run %.64r: %s",
            *(method, run, public_words(error)),
            extra=fields(public, **self._about(method, f"{run:.64}", seconds)),
        )
        trace = None if known else (type(error), error, error.__traceback__)
        private.warning(
            "%s of run %.64r: %s: %s", method, run, type(error).__name__, error, exc_info=trace
        )
        self._metrics.refusals.labels(method, public).inc()
        self._metrics.seconds.labels(method).observe(seconds)
        self._count(refusals=1)

    def waits(self, method: str, run: str) -> None:
        """A question waits for its owner; it is asked again every few seconds."""
        log.debug("%s of run %s waits for its owner", method, run, extra=fields("waiting"))

    def spent(self, epsilon: float, *, left: float) -> None:
        """The population's epsilon so far, and what the budget still holds."""
        self._metrics.spent_so_far = epsilon
        self._metrics.spent.set(epsilon)
        self._metrics.left.set(left)

    def follow(self, rounds: Callable[[], int], expires: datetime | None) -> None:
        """Measure at each scrape: open rounds, and days to the end of a certificate, if any."""
        self._metrics.open_rounds.set_function(rounds)
        if expires is not None:
            days = Gauge(
                "fedistill_agent_certificate_days_left",
                "Days until the registration or the project's certificate ends",
                registry=self.registry,
            )
            days.set_function(lambda: days_until(expires, datetime.now(UTC)))

    def _about(self, method: str, run: str, seconds: float) -> dict[str, object]:
        return {"site": self._site, "run": run, "phase": method, "seconds": round(seconds, 3)}

    def _count(
        self, *, answers: int = 0, refusals: int = 0, rounds: int = 0, last_answer: float = 0.0
    ) -> None:
        with self._lock:
            before = self.counts
            self.counts = Counts(
                answers=before.answers + answers,
                refusals=before.refusals + refusals,
                rounds=before.rounds + rounds,
                last_answer=last_answer or before.last_answer,
            )


def days_until(end: datetime, now: datetime) -> float:
    """Days from `now` to `end`; below 0 afterwards."""
    return (end - now) / timedelta(days=1)


@contextmanager
def scraped(watch: Watch, host: str, port: int) -> Iterator[None]:
    """Metrics at `http://host:port/metrics` within the context.

    Raises:
        OSError: The address cannot be listened on.
    """
    server, thread = start_http_server(port, addr=host, registry=watch.registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Metrics:
    """The agent's metrics; docs/operations.md lists them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"fedistill_agent_{name}", what, registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"fedistill_agent_{name}", what, labels, registry=registry)

        self.spent_so_far: float | None = None
        self.info = Info("fedistill_agent", "The site", registry=registry)
        self.started = gauge("start_time_seconds", "When the agent started, since 1970")
        self.answers = counter("answers_total", "Questions answered", "method")
        self.refusals = counter("refusals_total", "Questions refused", "method", "public_class")
        self.rounds = counter("rounds_total", "Rounds that this site took to their end")
        self.sent = counter("sent_bytes_total", "Bytes of answers", "method")
        self.seconds = Histogram(
            "fedistill_agent_phase_seconds",
            "Seconds of work on a question",
            ("method",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.open_rounds = gauge("open_rounds", "Sealed rounds that are open")
        self.last_answer = gauge("last_answer_timestamp_seconds", "Last answer, since 1970")
        self.budget = gauge("epsilon_budget", "The population's whole budget, at delta")
        self.spent = gauge("epsilon_spent", "Epsilon of all that was ever charged, at delta")
        self.left = gauge("epsilon_left", "What the budget still holds, at delta")
        self.delta = gauge("delta", "The delta of the epsilons")
