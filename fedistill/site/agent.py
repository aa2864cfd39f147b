"""The site's agent: the one place where private rows become a release.

`LocalAgent.labels` reads from top to bottom as the journey of the data: policy, cache, plan,
charge, release, receipt.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from fedistill.codec import decode_release, encode_release
from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import LedgerError, PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import LabelQuestion, LabelRelease
from fedistill.mechanisms import Teacher, has_float_noise, mechanism_named
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.grid import encode_log_odds
from fedistill.privacy.ledger import Ledger, StoredRelease
from fedistill.privacy.receipts import Receipt, append_receipt
from fedistill.site.policy import Policy


class SiteAgent(Protocol):
    """What the courier may ask of a site."""

    def labels(self, question: LabelQuestion) -> LabelRelease:
        """Noised labels on the proxy set, charged before they exist."""
        ...

    def evaluate(self, question: LabelQuestion, rows: ProxySet) -> LabelRelease:
        """The same teacher's labels on other public rows; post-processing, costs nothing."""
        ...


@dataclass(kw_only=True)
class LocalAgent:
    """An agent in this process. For one thread.

    A context manager: within it the ledger stays open from its first use on, which spares each
    further answer the syncs of opening and closing. Outside, it is open for one answer at a time.

    Attributes:
        run: Names the run on receipts.
        policy: The site's own clauses.
        rows: Private rows that the owner registered.
        proxy: The site's own copy of the public proxy set.
        ledger_path: Ledger of the policy's population.
        receipts_path: Where receipts are appended.
    """

    run: str
    policy: Policy
    rows: LabelledRows
    proxy: ProxySet
    ledger_path: Path
    receipts_path: Path
    _stays_open: bool = field(default=False, init=False, repr=False, compare=False)
    _ledger: Ledger | None = field(default=None, init=False, repr=False, compare=False)

    def __enter__(self) -> Self:
        self._stays_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stays_open = False
        self._close()

    def labels(self, question: LabelQuestion) -> LabelRelease:
        """Noised labels on the proxy set.

        Raises:
            PolicyRefusal: A clause forbids the question, or the encoder is unfit for public rows.
            BudgetExceeded: The budget does not hold the charge.
            LedgerError: The ledger cannot vouch for the budget.
        """
        mechanism = mechanism_named(question.mechanism)
        self.policy.check(
            question,
            units=mechanism.units,
            adjacency=mechanism.adjacency,
            float_noise=has_float_noise(mechanism),
            encoder=self.proxy.encoder,
        )
        if question.num_classes != self.rows.num_classes:
            raise PolicyRefusal(
                f"num_classes={question.num_classes} must be {self.rows.num_classes}, as registered"
            )
        rows = _rows_for(self.policy, self.rows)
        plan = mechanism.plan(question, self.proxy, rows_at_least=self.policy.rows_at_least)
        if self.proxy.encoder is not None:
            proxy_basis(self.proxy)  # an encoder that is unfit for public rows costs nothing
        with self._opened() as ledger:
            stored = ledger.cached(question.sha256)
            if stored is not None:
                self._write_receipt(ledger, question, stored.release, epsilon=0.0, cached=True)
                return decode_release(
                    stored.release,
                    question=question,
                    num_rows=len(self.proxy.rows),
                    event=plan.event,
                    parameters=mechanism.parameters,
                )
            charge = ledger.charge(
                question.sha256,
                {"mechanism": question.mechanism, "run": self.run},
                plan.event,
                budget_epsilon=self.policy.total_epsilon,
                delta=self.policy.delta,
            )
            release, teacher = mechanism.release(rows, self.proxy, plan)
            encoded = encode_release(release)
            ledger.store(charge, encoded, teacher.weights.tobytes())
            self._write_receipt(ledger, question, encoded, epsilon=charge.epsilon, cached=False)
        return release

    def evaluate(self, question: LabelQuestion, rows: ProxySet) -> LabelRelease:
        """Labels of the teacher that answered `question`, on other public rows.

        Raises:
            PolicyRefusal: `question` was not answered, so there is no private teacher to ask.
        """
        from dp_accounting import NoOpDpEvent

        with self._opened() as ledger:
            stored = ledger.cached(question.sha256)
        if stored is None:
            raise PolicyRefusal(f"{self.policy.site} has not answered this question: ask labels")
        answers = mechanism_named(question.mechanism).label(
            _teacher(stored, question), self.proxy, rows
        )
        codes, scale = encode_log_odds(answers.log_odds)
        return LabelRelease(
            codes=codes,
            scale=scale,
            mechanism=question.mechanism,
            parameters={},
            proxy_sha256=rows.sha256,
            event=NoOpDpEvent(),
        )

    @contextmanager
    def _opened(self) -> Iterator[Ledger]:
        """The ledger, opened if it is not; what a policy refuses never comes this far."""
        if self._ledger is None:
            self._ledger = open_ledger(self.policy, self.ledger_path, create=True)
        try:
            yield self._ledger
        except LedgerError:
            self._close()  # its owner may repair it: the next question looks at the disk again
            raise
        finally:
            if not self._stays_open:
                self._close()

    def _close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _write_receipt(
        self,
        ledger: Ledger,
        question: LabelQuestion,
        encoded: bytes,
        *,
        epsilon: float,
        cached: bool,
    ) -> None:
        append_receipt(
            self.receipts_path,
            Receipt(
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                run=self.run,
                site=self.policy.site,
                population=self.policy.population,
                what=_in_words(question, len(self.proxy.rows)),
                question=question.sha256,
                bytes=len(encoded),
                sha256=hashlib.sha256(encoded).hexdigest(),
                epsilon=epsilon,
                total_epsilon=ledger.spent(self.policy.delta),
                remaining_epsilon=ledger.remaining(self.policy.total_epsilon, self.policy.delta),
                delta=self.policy.delta,
                adjacency=self.policy.adjacency,
                unit=self.policy.unit,
                cached=cached,
            ),
        )


def open_ledger(policy: Policy, path: Path, *, create: bool) -> Ledger:
    """The ledger of the population that `policy` declares.

    Raises:
        LedgerError: See `Ledger.open`.
    """
    return Ledger.open(
        path,
        population=policy.population,
        adjacency=policy.adjacency,
        unit=policy.unit,
        create=create,
    )


def _rows_for(policy: Policy, rows: LabelledRows) -> LabelledRows:
    """The rows as the policy's unit groups them: below group level each row is a unit.

    Raises:
        PolicyRefusal: The policy protects groups and the registered rows name none.
    """
    if policy.unit is not Unit.GROUP:
        return replace(rows, units=None)
    if rows.units is None:
        raise PolicyRefusal(
            f"policy of {policy.site}: unit={policy.unit} must have rows that name their units: "
            "register them with a unit column"
        )
    return rows


def _in_words(question: LabelQuestion, num_proxy: int) -> str:
    integers = num_proxy * (question.num_classes - 1)
    return f"{integers:,} labels of {question.mechanism} as 16-bit integers"


def _teacher(stored: StoredRelease, question: LabelQuestion) -> Teacher:
    weights = np.frombuffer(stored.teacher, np.float64).reshape(-1, question.num_classes)
    return Teacher(weights=weights)
