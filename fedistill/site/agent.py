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
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedistill.codec import decode_release, encode_release
from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import LedgerError, PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import EVALUATION, LabelQuestion, LabelRelease
from fedistill.mechanisms import Plan, Teacher, has_float_noise, mechanism_named
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.charge import Charge
from fedistill.privacy.grid import encode_log_odds
from fedistill.privacy.ledger import Ledger, StoredRelease
from fedistill.privacy.ledger_budget import Alone
from fedistill.privacy.ledger_key import key_path, load_key
from fedistill.privacy.receipts import Receipt, append_receipt
from fedistill.site.approvals import Approvals
from fedistill.site.holding_out import hold_out
from fedistill.site.policy import Approval, Policy

if TYPE_CHECKING:
    from dp_accounting import DpEvent


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
        key: File of the site's signing key; None: beside the ledger.
        new_ledger: Whether a ledger that is missing is begun. Where it must exist, deleting it
            brings no budget back (PRIVACY rule 12).
        approvals: The owner's decisions, where the policy asks for them.
    """

    run: str
    policy: Policy
    rows: LabelledRows
    proxy: ProxySet
    ledger_path: Path
    receipts_path: Path
    key: Path | None = None
    new_ledger: bool = True
    approvals: Approvals | None = None
    _stays_open: bool = field(default=False, init=False, repr=False, compare=False)
    _users: int = field(default=0, init=False, repr=False, compare=False)
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
        """Noised labels on the proxy set, with a receipt.

        Raises:
            Refusal: See `answer`; or the policy wants labels to leave in sums over sites only.
        """
        self.policy.check_sealed(sealed=False)
        plan, rows = self.plan(question), self.unit_rows
        with self.ledger():
            answer = self._answer(plan, rows)
            encoded = encode_release(answer.release)
            self.write_receipt(question, encoded, epsilon=answer.epsilon, cached=answer.cached)
        return answer.release

    def answer(self, question: LabelQuestion) -> "Answer":
        """Noised labels on the proxy set: charged before they exist, or given again.

        Raises:
            PolicyRefusal: A clause forbids the question, or the encoder is unfit for public rows.
            BudgetExceeded: The budget does not hold the charge.
            LedgerError: The ledger cannot vouch for the budget.
        """
        return self._answer(self.plan(question), self.unit_rows)

    def _answer(self, plan: Plan, rows: LabelledRows) -> "Answer":
        question = plan.question
        with self.ledger() as ledger:
            stored = ledger.cached(question.sha256)
            if stored is not None:
                return Answer(release=self._decoded(stored, question), epsilon=0.0, cached=True)
            charge = self.charge(ledger, question, plan.event)
            mechanism = mechanism_named(question.mechanism)
            release, teacher = mechanism.release(self.learned_from(rows), self.proxy, plan)
            ledger.store(charge, encode_release(release), teacher.weights.tobytes())
        return Answer(release=release, epsilon=charge.epsilon, cached=False)

    def evaluate(self, question: LabelQuestion, rows: ProxySet) -> LabelRelease:
        """Labels of the teacher that answered `question`, on other public rows.

        Raises:
            PolicyRefusal: `question` was not answered, so there is no private teacher to ask.
        """
        from dp_accounting import NoOpDpEvent

        with self.ledger() as ledger:
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

    @property
    def identity(self) -> Ed25519PrivateKey:
        """The key that signs for this site: its ledger, and its part of sealed rounds."""
        return load_key(self.key or key_path(self.ledger_path)).private

    @property
    def unit_rows(self) -> LabelledRows:
        """The rows as the policy's unit groups them: below group level each row is a unit.

        Raises:
            PolicyRefusal: The policy protects groups and the registered rows name none.
        """
        if self.policy.unit is not Unit.GROUP:
            return replace(self.rows, units=None)
        if self.rows.units is None:
            raise PolicyRefusal(
                f"policy of {self.policy.site}: unit={self.policy.unit} must have rows that name "
                "their units: register them with a unit column"
            )
        return self.rows

    def learned_from(self, rows: LabelledRows) -> LabelledRows:
        """Those of `unit_rows` that are not held out for evaluation."""
        if self.policy.holdout_fraction == 0:
            return rows
        return hold_out(rows, self.policy.holdout_fraction, self.identity).learned_from

    def held_out(self, rows: LabelledRows) -> LabelledRows:
        """Those of `unit_rows` that nothing is learned from."""
        return hold_out(rows, self.policy.holdout_fraction, self.identity).held_out

    def check(self, question: LabelQuestion) -> None:
        """Refuse what the policy forbids and what these rows cannot answer. Reads no private row.

        Raises:
            PolicyRefusal: Names the clause, the value and the bound.
            Waiting: The site's owner has not decided on the question.
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
        self.require_approval(question)
        if self.proxy.encoder is not None:
            proxy_basis(self.proxy)  # an encoder that is unfit for public rows costs nothing

    def plan(self, question: LabelQuestion) -> Plan:
        """What answering would cost, if `check` allows it."""
        self.check(question)
        mechanism = mechanism_named(question.mechanism)
        return mechanism.plan(question, self.proxy, rows_at_least=self.policy.rows_at_least)

    def charge(
        self,
        ledger: Ledger,
        question: LabelQuestion,
        event: "DpEvent",
        *,
        alone: "DpEvent | None" = None,
    ) -> Charge:
        """Write a charge into the budget; `alone` is the cost if all other sites collude.

        Raises:
            Refusal: See `Ledger.charge`.
        """
        view = None
        if self.policy.total_epsilon_alone is not None:
            view = Alone(event=alone or event, budget_epsilon=self.policy.total_epsilon_alone)
        return ledger.charge(
            question.sha256,
            {"mechanism": question.mechanism, "run": self.run},
            event,
            budget_epsilon=self.policy.total_epsilon,
            delta=self.policy.delta,
            alone=view,
        )

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger, opened if it is not; what a policy refuses never comes this far."""
        if self._ledger is None:
            self._ledger = open_ledger(
                self.policy, self.ledger_path, create=self.new_ledger, key=self.key
            )
        self._users += 1
        try:
            yield self._ledger
        except LedgerError:
            self._close()  # its owner may repair it: the next question looks at the disk again
            raise
        finally:
            self._users -= 1
            if not self._stays_open and not self._users:
                self._close()

    def write_receipt(
        self,
        question: LabelQuestion,
        sent: bytes,
        *,
        epsilon: float,
        cached: bool,
        sealed: bool = False,
    ) -> None:
        """Append the receipt of an answer: `sent` is what leaves the site.

        Raises:
            LedgerError: It cannot be written, or the ledger cannot be read.
        """
        policy = self.policy
        with self.ledger() as ledger:
            receipt = Receipt(
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                run=self.run,
                site=policy.site,
                population=policy.population,
                what=_in_words(question, len(sent), len(self.proxy.rows), sealed=sealed),
                question=question.sha256,
                bytes=len(sent),
                sha256=hashlib.sha256(sent).hexdigest(),
                epsilon=epsilon,
                total_epsilon=ledger.spent(policy.delta),
                alone_epsilon=ledger.spent_alone(policy.delta),
                remaining_epsilon=ledger.remaining(policy.total_epsilon, policy.delta),
                delta=policy.delta,
                adjacency=policy.adjacency,
                unit=policy.unit,
                cached=cached,
                sealed=sealed,
            )
        append_receipt(self.receipts_path, receipt)

    def stored(self, question: LabelQuestion) -> LabelRelease | None:
        """The site's own answer to a question, from its ledger; None where there is none.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        with self.ledger() as ledger:
            stored = ledger.cached(question.sha256)
        return None if stored is None else self._decoded(stored, question)

    def _decoded(self, stored: StoredRelease, question: LabelQuestion) -> LabelRelease:
        return decode_release(
            stored.release,
            question=question,
            num_rows=len(self.proxy.rows),
            event=stored.charge.event,
            parameters=mechanism_named(question.mechanism).parameters,
        )

    def require_approval(self, question: LabelQuestion) -> None:
        """Refuse what the owner has not approved, where the policy asks for that.

        Raises:
            PolicyRefusal: The owner denied it, or cannot be asked.
            Waiting: The owner has not decided.
        """
        if self.policy.approval is not Approval.BY_HAND:
            return
        if self.approvals is None:
            raise PolicyRefusal(
                f"policy of {self.policy.site}: approval={self.policy.approval} must be automatic "
                "where nobody can be asked: run the site's agent"
            )
        self.approvals.require(self.run, question)

    def _close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A release, what this answer was charged, and whether it was given before."""

    release: LabelRelease
    epsilon: float
    cached: bool


def open_ledger(policy: Policy, path: Path, *, create: bool, key: Path | None = None) -> Ledger:
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
        key=key,
    )


def _in_words(question: LabelQuestion, num_bytes: int, num_proxy: int, *, sealed: bool) -> str:
    if sealed:
        return f"{question.mechanism}, {num_bytes:,} bytes masked: of them the server sees a sum"
    if question.mechanism == EVALUATION:
        return f"{num_bytes // 8:,} counts of an {question.mechanism} as 64-bit integers"
    integers = num_proxy * (question.num_classes - 1)
    return f"{integers:,} labels of {question.mechanism} as 16-bit integers"


def _teacher(stored: StoredRelease, question: LabelQuestion) -> Teacher:
    weights = np.frombuffer(stored.teacher, np.float64).reshape(-1, question.num_classes)
    return Teacher(weights=weights)
