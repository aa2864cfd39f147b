"""What a ledger's charges leave of a budget, the words of a charge and those of a refusal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fedistill.errors import BudgetExceeded
from fedistill.privacy import accountant
from fedistill.privacy.adjacency import Adjacency
from fedistill.privacy.chain import canonical
from fedistill.privacy.events import event_to_json
from fedistill.privacy.ledger_contents import Contents

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What is spent of a budget, and what is left.

    Attributes:
        charges: How many there are.
        delta: The delta of all the epsilons here.
        budget_epsilon: The population's whole budget.
        spent_epsilon: Epsilon of everything that was ever charged, composed.
        alone_epsilon: The same as `spent_epsilon` if all other sites pool what they know.
        remaining_epsilon: `budget_epsilon` less `spent_epsilon`, at least 0.
        largest_question_epsilon: Epsilon of the largest single question that still fits: more than
            `remaining_epsilon`, because releases compose in Renyi divergence.
    """

    charges: int
    delta: float
    budget_epsilon: float
    spent_epsilon: float
    alone_epsilon: float
    remaining_epsilon: float
    largest_question_epsilon: float

    @classmethod
    def of(cls, contents: Contents, *, budget_epsilon: float, delta: float) -> "Balance":
        """The balance of a ledger.

        Raises:
            ConfigError: budget or delta is out of bounds.
        """
        adjacency = Adjacency(contents.header["adjacency"])
        events = contents.events
        spent = accountant.epsilon_of(events, delta, adjacency) if events else 0.0
        return cls(
            charges=len(contents.entries),
            delta=delta,
            budget_epsilon=budget_epsilon,
            spent_epsilon=spent,
            alone_epsilon=accountant.epsilon_of(contents.alone_events, delta, adjacency)
            if events
            else 0.0,
            remaining_epsilon=max(0.0, budget_epsilon - spent),
            largest_question_epsilon=accountant.largest_epsilon_left(
                events, budget_epsilon=budget_epsilon, delta=delta, adjacency=adjacency
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Alone:
    """The other view of a charge: its cost if all other sites collude, and the budget of that."""

    event: "DpEvent"
    budget_epsilon: float


def check_budget(
    population: str,
    past: "Sequence[DpEvent]",
    event: "DpEvent",
    *,
    budget_epsilon: float,
    delta: float,
    adjacency: Adjacency,
) -> None:
    """Refuse `event` unless it fits after `past`.

    Raises:
        BudgetExceeded: it does not; says what was spent, what it costs and what still fits.
        ConfigError: epsilon, delta or the event is out of bounds.
    """
    if accountant.within_budget(
        past, event, budget_epsilon=budget_epsilon, delta=delta, adjacency=adjacency
    ):
        return
    spent = accountant.epsilon_of(past, delta, adjacency)
    asked = accountant.epsilon_of(event, delta, adjacency)
    together = accountant.epsilon_of([*past, event], delta, adjacency)
    left = accountant.largest_epsilon_left(
        past, budget_epsilon=budget_epsilon, delta=delta, adjacency=adjacency
    )
    raise BudgetExceeded(
        f"population {population!r} has spent epsilon={spent:.6g} of a budget of "
        f"{budget_epsilon:.6g} at delta={delta:g}; the question costs {asked:.6g}, both together "
        f"{together:.6g}. Nothing was charged. {_way_out(left)}, repeat an answered question "
        "(free), or let the site's owner raise the budget"
    )


def check_views(
    population: str,
    past: Contents,
    event: "DpEvent",
    *,
    budget_epsilon: float,
    delta: float,
    adjacency: Adjacency,
    alone: Alone | None,
) -> None:
    """Refuse a charge unless it fits both budgets: by its own view, and if all others collude.

    Raises:
        BudgetExceeded, ConfigError: As `check_budget`.
    """
    check_budget(
        population,
        past.events,
        event,
        budget_epsilon=budget_epsilon,
        delta=delta,
        adjacency=adjacency,
    )
    if alone is not None:
        check_budget(
            f"{population}, all other sites colluding",
            past.alone_events,
            alone.event,
            budget_epsilon=alone.budget_epsilon,
            delta=delta,
            adjacency=adjacency,
        )


def entry_text(
    sequence: int,
    question: str,
    description: Mapping[str, Any],
    event: "DpEvent",
    *,
    past: "Sequence[DpEvent]",
    budget_epsilon: float,
    delta: float,
    adjacency: Adjacency,
    alone: "Alone | None" = None,
) -> str:
    """Canonical JSON of the charge of `event` after `past`: what the ledger hashes and signs.

    See `Charge` for its fields.
    """
    return canonical(
        {
            "sequence": sequence,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "question": question,
            "description": dict(description),
            "event": event_to_json(event),
            "epsilon": accountant.epsilon_of(event, delta, adjacency),
            "spent_epsilon": accountant.epsilon_of([*past, event], delta, adjacency),
            "budget_epsilon": budget_epsilon,
            "delta": delta,
        }
        | ({} if alone is None else {"alone": event_to_json(alone.event)})
    )


def _way_out(left: float) -> str:
    shown = math.floor(left * 1000) / 1000
    if shown <= 0:
        return "No further question fits: wait for a new budget"
    return f"The largest question that still fits has epsilon={shown:g}: ask that"
