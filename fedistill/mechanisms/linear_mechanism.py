"""What mechanisms share whose teacher is weights on the public features.

All of it is post-processing: weights that were paid for become labels of proxy rows, as a release,
and labels of other public rows.
"""

from collections.abc import Mapping

from fedistill.data import ProxySet
from fedistill.features import proxy_basis
from fedistill.labels import Floats, LabelRelease, SoftLabels
from fedistill.mechanisms.linear_answers import log_odds_of
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.privacy.adjacency import Adjacency
from fedistill.privacy.grid import encode_log_odds


class LinearMechanism:
    """Base of mechanisms that end in weights; leaves `plan`, `release` and `response` to them."""

    name: str
    adjacency = Adjacency.ADD_REMOVE

    def answer(
        self, weights: Floats, proxy: ProxySet, plan: Plan, stated: Mapping[str, float]
    ) -> tuple[LabelRelease, Teacher]:
        """What `release` returns: the proxy set's labels by these weights, and their teacher.

        Args:
            weights: (num_features, num_classes), noised or computed from what is.
            proxy: The proxy set to label.
            plan: What was charged.
            stated: Values of `parameters`, public or paid for; below 1 they are stated as 1.
        """
        codes, scale = encode_log_odds(log_odds_of(proxy_basis(proxy).values, weights))
        release = LabelRelease(
            codes=codes,
            scale=scale,
            mechanism=self.name,
            parameters={name: max(float(value), 1.0) for name, value in stated.items()},
            proxy_sha256=proxy.sha256,
            event=plan.event,
        )
        return release, Teacher(weights=weights)

    def label(self, teacher: Teacher, proxy: ProxySet, rows: ProxySet) -> SoftLabels:
        """The teacher's answers on other public rows."""
        features = proxy_basis(proxy).features(rows.rows)
        return SoftLabels(log_odds=log_odds_of(features, teacher.weights))
