"""How a site stands, for its owner: the budget, what waits, and what its agent does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import grpc

from fedistill.privacy import ledger_file
from fedistill.privacy.ledger_anchor import read_anchor
from fedistill.privacy.ledger_budget import Balance
from fedistill.site.policy import Policy
from fedistill.site.site_config import SiteConfig
from fedistill.site.watching import days_until
from fedistill.site_api import agent_pb2
from fedistill.site_api.client import SiteClient


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What `fedistill site status` prints. Counts and times are of this start of the agent.

    Attributes:
        site: The site's name.
        population: Whose budget it is.
        budget_epsilon: The population's whole budget, at `delta` as all epsilons here.
        spent_epsilon: Epsilon of all that was ever charged.
        left_epsilon: What the budget still holds.
        delta: Of the epsilons.
        charges: How many there were.
        waiting: Runs whose question waits for the owner.
        certificate_days: Days to the end of registration or certificate; None without a kit.
        running: Whether the agent answers.
        busy: What it answers right now; empty when idle.
        uptime_seconds: Since it started.
        open_rounds: Runs whose sealed round is open.
        finished_rounds: Rounds that it took to their end.
        answers: Questions answered.
        refusals: Questions refused.
        last_answer: When, UTC, ISO 8601; empty for never.
    """

    site: str
    population: str
    budget_epsilon: float
    spent_epsilon: float
    left_epsilon: float
    delta: float
    charges: int
    waiting: tuple[str, ...]
    certificate_days: float | None
    running: bool
    busy: str = ""
    uptime_seconds: float = 0.0
    open_rounds: tuple[str, ...] = ()
    finished_rounds: int = 0
    answers: int = 0
    refusals: int = 0
    last_answer: str = ""

    def to_json(self) -> dict[str, object]:
        """The same with kebab-case keys."""
        return {key.replace("_", "-"): value for key, value in asdict(self).items()}


def standing(
    config: SiteConfig,
    *,
    waiting: Sequence[str],
    expires: datetime | None,
    now: datetime,
    patience: float,
) -> Standing:
    """How a site stands.

    Args:
        config: The agent's file.
        waiting: Runs whose question waits for the owner.
        expires: When registration or certificate end, where there is a kit.
        now: The time.
        patience: Seconds to wait for the agent.

    Raises:
        PolicyRefusal: There is no policy, or it cannot be understood.
        LedgerError: The ledger cannot be read, or cannot vouch for the budget.
    """
    policy, path = Policy.load(config.policy_path), config.ledger_path
    ledger_file.identity(path, read_anchor(path))  # says so where there is none
    balance = Balance.of(
        ledger_file.read(path),
        budget_epsilon=policy.total_epsilon,
        delta=policy.delta,
    )
    reply = _asked(config, patience)
    said = agent_pb2.StatusReply() if reply is None else reply
    last = datetime.fromtimestamp(said.last_answer, UTC) if said.last_answer else None
    return Standing(
        site=policy.site,
        population=policy.population,
        budget_epsilon=policy.total_epsilon,
        spent_epsilon=balance.spent_epsilon,
        left_epsilon=balance.remaining_epsilon,
        delta=policy.delta,
        charges=balance.charges,
        waiting=tuple(waiting),
        certificate_days=None if expires is None else days_until(expires, now),
        running=reply is not None,
        busy=said.busy,
        uptime_seconds=max(0.0, round(now.timestamp() - said.started, 1)) if said.started else 0.0,
        open_rounds=tuple(said.rounds),
        finished_rounds=said.finished_rounds,
        answers=said.answers,
        refusals=said.refusals,
        last_answer=last.isoformat(timespec="seconds") if last else "",
    )


def _asked(config: SiteConfig, patience: float) -> agent_pb2.StatusReply | None:
    try:
        with SiteClient(config.owner_socket_path, patience=patience) as client:
            return client.status()
    except grpc.RpcError:
        return None
