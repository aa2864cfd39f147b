"""What to tell the coordinator of sites whose answers disagree with the others'."""

from collections.abc import Sequence

from fedistill.distill.outliers import LIMIT
from fedistill.distill.target import Ensemble


def disagreements(ensemble: Ensemble, sites: Sequence[str], weights: str) -> list[str]:
    """A sentence for every site beyond `LIMIT` standard deviations, the farthest first.

    Args:
        ensemble: Of these sites.
        sites: Their names, in the order of the releases.
        weights: The value of `ensemble-weights`.
    """
    scores, excess = ensemble.outliers.scores, ensemble.outliers.excess
    return [
        f"{sites[number]} disagrees with the other sites by {scores[number]:.0f} standard "
        f"deviations: {_consequence(weights, lowered=bool(excess[number] > 0))}; ask its owner "
        "whether its labels are right"
        for number in (-scores).argsort(kind="stable")
        if scores[number] > LIMIT
    ]


def _consequence(weights: str, *, lowered: bool) -> str:
    if weights != "agreement":
        return f"ensemble-weights={weights!r} bounds what it can do"
    if lowered:
        return "its weight is lowered accordingly"
    return "unlike class shares can be the reason, so its weight is not lowered"
