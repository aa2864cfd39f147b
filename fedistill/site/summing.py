"""A site's integers for a sum whose noise may be shared: charged, noised, and given once.

Under `trust = "none"` the noise is the site's own, the same question gets the same integers at no
cost. Where noise is shared they are fresh each time, and charged each time (PRIVACY rule 13).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.labels import Floats, LabelQuestion
from fedistill.mechanisms import SumPlan, summable
from fedistill.site.agent import LocalAgent

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part in a sum, (length,) int64, what it was charged, and whether it was given before."""

    integers: Integers
    epsilon: float
    cached: bool


def plan_sum(agent: LocalAgent, question: LabelQuestion, num_sites: int) -> SumPlan:
    """What a part in the sum would cost, if the policy allows it. Reads no private row.

    Raises:
        PolicyRefusal: A clause forbids the question, or it has no sum.
    """
    agent.check(question)
    return summable(question.mechanism).plan_sum(
        question, agent.proxy, rows_at_least=agent.policy.rows_at_least, num_sites=num_sites
    )


def summed_integers(
    agent: LocalAgent, question: LabelQuestion, num_sites: int, weights: Floats
) -> Part:
    """The site's part in the sum.

    Raises:
        Refusal: See `LocalAgent.answer`.
    """
    plan, rows = plan_sum(agent, question, num_sites), agent.unit_rows

    def noised() -> Integers:
        mechanism = summable(question.mechanism)
        return mechanism.noised_integers(agent.learned_from(rows), agent.proxy, plan, weights)

    return charged_part(agent, question, plan, noised)


def charged_part(
    agent: LocalAgent, question: LabelQuestion, plan: SumPlan, noised: Callable[[], Integers]
) -> Part:
    """What `noised` gives, called once it is charged for; or what it gave before.

    Raises:
        Refusal: See `Ledger.charge`.
    """
    own_noise = question.trust == "none"
    with agent.ledger() as ledger:
        stored = ledger.cached(question.sha256) if own_noise else None
        if stored is not None:
            integers = np.frombuffer(stored.release, "<i8").astype(np.int64)
            return Part(integers=integers, epsilon=0.0, cached=True)
        charge = agent.charge(ledger, question, plan.event, alone=plan.alone)
        integers = noised()
        if own_noise:
            ledger.store(charge, integers.astype("<i8").tobytes(), b"")
    return Part(integers=integers, epsilon=charge.epsilon, cached=False)
