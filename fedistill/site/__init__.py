"""What a site runs: its policy, and the agent that alone reads private rows."""

from fedistill.site.agent import LocalAgent, SiteAgent, open_ledger
from fedistill.site.policy import FloatNoise, Policy

__all__ = ["FloatNoise", "LocalAgent", "Policy", "SiteAgent", "open_ledger"]
