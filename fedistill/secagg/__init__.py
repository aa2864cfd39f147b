"""Secure aggregation: the server learns the sum of the sites' integers, and nothing of one site.

    site      advertise -> share -> mask -> agree -> reveal
    server    collect_adverts -> collect_shares -> collect_vectors -> collect_signatures -> unmask

Bonawitz et al. 2017 for a server that may do anything, with the ring of Bell et al. 2020 above 50
sites. Pure functions on frozen dataclasses: nothing here opens a file or a connection, and nothing
knows torch or Flower. `docs/secure-aggregation.md` has the threat model.
"""

from fedistill.secagg.graph import Graph, ring_sizes
from fedistill.secagg.messages import (
    KeyAdvert,
    MaskedVector,
    Participation,
    RevealedShares,
    ShareBundle,
    ShareDelivery,
    SurvivorSignature,
)
from fedistill.secagg.server import (
    ServerRound,
    collect_adverts,
    collect_shares,
    collect_signatures,
    collect_vectors,
    unmask,
)
from fedistill.secagg.site import advertise, agree, check_delivery, mask, reveal, share
from fedistill.secagg.state import SiteState, Stage
from fedistill.secagg.terms import MODULUS, RoundTerms, threshold_for

__all__ = [
    "MODULUS",
    "Graph",
    "KeyAdvert",
    "MaskedVector",
    "Participation",
    "RevealedShares",
    "RoundTerms",
    "ServerRound",
    "ShareBundle",
    "ShareDelivery",
    "SiteState",
    "Stage",
    "SurvivorSignature",
    "advertise",
    "agree",
    "check_delivery",
    "collect_adverts",
    "collect_shares",
    "collect_signatures",
    "collect_vectors",
    "mask",
    "reveal",
    "ring_sizes",
    "share",
    "threshold_for",
    "unmask",
]
