"""What a site runs: its policy, and the agent that alone reads private rows."""

from fedistill.site.agent import LocalAgent, SiteAgent
from fedistill.site.policy import Approval, Evaluation, FloatNoise, Policy, Sealing, Trust
from fedistill.site.sealing import SealedRound
from fedistill.site.site_ledger import open_ledger

__all__ = [
    "Approval",
    "Evaluation",
    "FloatNoise",
    "LocalAgent",
    "Policy",
    "SealedRound",
    "Sealing",
    "SiteAgent",
    "Trust",
    "open_ledger",
]
