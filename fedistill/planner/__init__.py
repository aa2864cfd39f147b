"""Advice from public data alone: which mechanism, and what to expect at which epsilon.

No private row and no private path comes near this package. Virtual sites are made of public rows,
the real mechanisms answer them with their real noise, and the ensembles are scored on public rows.
"""

from fedistill.planner.forecast import Forecast, Request, forecast
from fedistill.planner.public_rows import PublicRows, read_public_rows
from fedistill.planner.trial import Trial

__all__ = ["Forecast", "PublicRows", "Request", "Trial", "forecast", "read_public_rows"]
