"""What a site keeps of all that left it: its receipts, and the server's signatures under them.

A receipt is written before its answer leaves, signed by the site, and names the ledger's head. Of
it only `LocalAgent.statement` travels.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedistill.errors import DataError, LedgerError
from fedistill.labels import EVALUATION, LabelQuestion
from fedistill.privacy.countersign import Countersigned, append_countersigned, countersigned_path
from fedistill.privacy.receipts import Receipt, sign_receipt

if TYPE_CHECKING:
    from fedistill.site.agent import LocalAgent


def write_receipt(
    agent: "LocalAgent",
    question: LabelQuestion,
    sent: bytes,
    *,
    epsilon: float,
    cached: bool,
    sealed: bool = False,
) -> None:
    """Append the signed receipt of an answer: `sent` is what leaves the site.

    Raises:
        LedgerError: It cannot be written, or the ledger cannot be read.
    """
    policy = agent.policy
    with agent.ledger() as ledger:
        charges, head = ledger.head
        receipt = Receipt(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            run=agent.run,
            site=policy.site,
            population=policy.population,
            what=_in_words(question, len(sent), len(agent.proxy.rows), sealed=sealed),
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
    agent.statement = sign_receipt(
        agent.receipts_path, receipt, agent.site_key, charges=charges, head=head
    ).to_bytes()


def keep_countersigned(agent: "LocalAgent", parts: Sequence[bytes]) -> None:
    """Check what the server countersigned, and keep it beside the receipts.

    Raises:
        PolicyRefusal: The policy pins no server's key, or another one.
        DataError: A part is malformed, of another site, or not signed by both.
        LedgerError: The ledger does not hold a head that the server countersigned.
    """
    items = [Countersigned.from_bytes(part) for part in parts]
    with agent.ledger() as ledger:
        for item in items:
            said = item.statement
            agent.policy.check_server(item.server_key)
            if said.public_key != agent.site_key.public or not item.is_signed:
                raise DataError(
                    f"receipt {said.number} of {said.site!r} must be this site's, signed by "
                    "it and by the server"
                )
            if not ledger.holds(said.charges, said.head):
                raise LedgerError(
                    f"ledger {agent.ledger_path} does not hold entry {said.charges}, which the "
                    "server countersigned: it was replaced by an older copy; restore it from a "
                    "backup made after the last charge"
                )
        append_countersigned(countersigned_path(agent.receipts_path), items)


def _in_words(question: LabelQuestion, num_bytes: int, num_proxy: int, *, sealed: bool) -> str:
    if sealed:
        return f"{question.mechanism}, {num_bytes:,} bytes masked: of them the server sees a sum"
    if question.mechanism == EVALUATION:
        return f"{num_bytes // 8:,} counts of an {question.mechanism} as 64-bit integers"
    integers = num_proxy * (question.num_classes - 1)
    return f"{integers:,} labels of {question.mechanism} as 16-bit integers"
