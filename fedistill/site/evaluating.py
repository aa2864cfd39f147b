"""A site's part in an evaluation: a public student scored on the rows that the site held out.

Policy, student and plan are checked first, then the cost is charged, and only then are rows read.
"""

from collections.abc import Callable

from fedistill.codec import encode_evaluation
from fedistill.errors import PolicyRefusal
from fedistill.labels import EVALUATION, EvaluationRelease, LabelQuestion
from fedistill.mechanisms import SumPlan
from fedistill.mechanisms.evaluation import ADJACENCY, UNITS, noised_tables, plan_evaluation
from fedistill.mechanisms.sent_student import read_student
from fedistill.site.agent import LocalAgent
from fedistill.site.summing import Integers, Part, charged_part


def evaluate(agent: LocalAgent, question: LabelQuestion, sent: bytes) -> EvaluationRelease:
    """The site's noised tables by themselves, with a receipt.

    Args:
        agent: The site.
        question: What the server asks.
        sent: The student that the question names by its hash, as `student_to_bytes` has it.

    Raises:
        Refusal: See `evaluated_integers`; or the policy wants answers to leave in sums only.
    """
    agent.policy.check_sealed(sealed=False)
    plan, noised = _prepared(agent, question, 1, sent)
    with agent.ledger():
        part = charged_part(agent, question, plan, noised)
        release = EvaluationRelease(counts=part.integers, event=plan.event)
        leaves = encode_evaluation(release)
        agent.write_receipt(question, leaves, epsilon=part.epsilon, cached=part.cached)
    return release


def planned_evaluation(agent: LocalAgent, question: LabelQuestion, num_sites: int) -> SumPlan:
    """What an evaluation would cost, if the policy allows it. Reads no private row.

    Raises:
        PolicyRefusal: A clause forbids the question.
        Waiting: The site's owner has not decided on it.
    """
    if question.mechanism != EVALUATION:
        raise PolicyRefusal(
            f"mechanism={question.mechanism!r} must be {EVALUATION!r} to score a student: ask so"
        )
    agent.policy.check(question, units=UNITS, adjacency=ADJACENCY)
    if question.num_classes != agent.rows.num_classes:
        raise PolicyRefusal(
            f"num_classes={question.num_classes} must be {agent.rows.num_classes}, as registered"
        )
    agent.require_approval(question)
    return plan_evaluation(question, rows_at_least=agent.policy.rows_at_least, num_sites=num_sites)


def evaluated_integers(
    agent: LocalAgent, question: LabelQuestion, num_sites: int, sent: bytes
) -> Part:
    """The site's noised tables as a part in the sum over `num_sites`.

    Raises:
        Refusal: See `planned_evaluation`, `read_student` and `Ledger.charge`; or the student is
            larger than the policy allows.
    """
    return charged_part(agent, question, *_prepared(agent, question, num_sites, sent))


def _prepared(
    agent: LocalAgent, question: LabelQuestion, num_sites: int, sent: bytes
) -> tuple[SumPlan, Callable[[], Integers]]:
    """What it costs, and what may be called once that is charged; all that can be refused is."""
    plan, rows = planned_evaluation(agent, question, num_sites), agent.unit_rows
    agent.policy.check_student(sent)
    student = read_student(
        sent,
        question.broadcast_sha256,
        num_classes=question.num_classes,
        num_columns=len(agent.proxy.columns),
    )

    def noised() -> Integers:
        return noised_tables(agent.held_out(rows), student.answer, student.edges, plan)

    return plan, noised
