"""The types that carry labels: what is asked, what stays, what travels, what the student learns.

Only `LabelRelease` has a wire encoding (`fedistill.codec`); `SoftLabels` has none, so un-noised
labels cannot leave a site.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from fedistill.errors import DataError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16] | npt.NDArray[np.int64]
"""int16 as a site releases them, int64 as a sum over sites."""

EVALUATION = "evaluation"
"""Names, in place of a mechanism, the question how a student does on rows that a site held out."""


@dataclass(frozen=True, kw_only=True)
class LabelQuestion:
    """What the server asks of a site. Every field is public.

    Attributes:
        mechanism: Name of the mechanism that shall answer.
        epsilon: What the answer may cost, at `delta`.
        delta: See above; 0 < delta <= 1e-3.
        num_classes: Classes of the task, at least 2.
        proxy_sha256: The proxy set to label.
        solver: How `dp-probe` finds its weights: `combined`, `gradient` or `moment`.
        probe_steps: Noised sums of `dp-probe`; 0 takes what suits solver and site.
        teacher: Name of the model that `sharded`, `clipped` or `dp-sgd` trains; "" takes the first.
        shards: Disjoint shards of `sharded`, each with a teacher of its own.
        queries: Proxy rows that `sharded` is asked; the others follow from these.
        answers: Of `sharded`: `soft` labels of all these, or `confident` votes on some.
        confidence: Share of the teachers that must agree before a row gets a confident answer.
        answers_at_most: Rows that are answered confidently before `sharded` stops.
        cells: Public cells of each partition of `votes`.
        partitions: Partitions of `votes`; a record votes in one cell of each.
        clip_norm: L2 bound of `clipped` on the whole matrix of log-odds.
        sgd_steps: Noisy gradient steps of `dp-sgd`.
        sgd_sampling_rate: Chance of a record to take part in a step of `dp-sgd`.
        sgd_clip: L2 bound of a record's gradient in `dp-sgd`.
        sgd_learning_rate: Learning rate of `dp-sgd`.
        trust: Whose noise protects a site: `none`, its own alone, or `secagg`, that of
            `min_honest_sites` sites together, of which the server sees the sum.
        min_honest_sites: Sites whose noise is in the sum at least and that collude with nobody.
        round: Of `rounds`, from 1; each is a question of its own.
        rounds: Federation rounds, of which each costs an equal part of `epsilon`'s rho.
        broadcast_sha256: Of the weights, or the student, that came with the question; "" without.
        run: Names the run where noise is shared: its answers are never given again.
        cohort_sha256: Of the sites whose answers are summed; "" where each answers alone.
        holdout_fraction: Share of the site's units that nothing is learned from.
        server_key: Public key (hex) by which the server countersigns receipts; "" where it does
            not. No part of the question's identity.
    """

    mechanism: str
    epsilon: float
    delta: float
    num_classes: int
    proxy_sha256: str
    solver: str = "combined"
    probe_steps: int = 0
    teacher: str = ""
    shards: int = 100
    queries: int = 300
    answers: str = "soft"
    confidence: float = 0.8
    answers_at_most: int = 100
    cells: int = 100
    partitions: int = 1
    clip_norm: float = 100.0
    sgd_steps: int = 100
    sgd_sampling_rate: float = 0.2
    sgd_clip: float = 0.5
    sgd_learning_rate: float = 0.3
    trust: str = "none"
    min_honest_sites: int = 1
    round: int = 1
    rounds: int = 1
    broadcast_sha256: str = ""
    run: str = ""
    cohort_sha256: str = ""
    holdout_fraction: float = 0.0
    server_key: str = ""

    @property
    def sha256(self) -> str:
        """The question's identity: equal questions get the same cached answer."""
        fields = {name: value for name, value in asdict(self).items() if name != "server_key"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_fields(cls, values: Mapping[str, object]) -> Self:
        """The question with these fields, as it came over a wire.

        Raises:
            DataError: A field is missing, unknown or of the wrong type.
        """
        types = {field.name: field.type for field in fields(cls)}
        if set(values) != set(types):
            raise DataError(f"malformed question: fields {sorted(values)}")
        for name, value in values.items():
            if type(value) is not types[name]:
                raise DataError(f"malformed question: {name}={value!r} must be {types[name]}")
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class SoftLabels:
    """A teacher's answers. Never leaves the process that made it.

    `log_odds` has shape (num_rows, num_classes - 1): natural log-odds against class 0.
    """

    log_odds: Floats


@dataclass(frozen=True, kw_only=True)
class LabelRelease:
    """Differentially private soft labels on the proxy set: all that leaves a site.

    Attributes:
        codes: (num_proxy, num_classes - 1) int16, or int64 where sites were summed; `codes * scale`
            are log-odds against class 0.
        scale: The step of the integer grid of `codes`, in nats; public.
        mechanism: Name of the mechanism that made the release.
        parameters: What the release states besides the codes; public or paid for by `event`.
        proxy_sha256: The proxy set that was labelled.
        event: What the release cost, for `dp_accounting`.
    """

    codes: Codes
    scale: float
    mechanism: str
    parameters: Mapping[str, float]
    proxy_sha256: str
    event: "DpEvent"

    @property
    def log_odds(self) -> Floats:
        """Log-odds against class 0, shape (num_proxy, num_classes - 1)."""
        return self.codes.astype(np.float64) * self.scale


@dataclass(frozen=True, kw_only=True)
class EvaluationRelease:
    """Noised tables of a student's hits and scores: all that an evaluation lets out of a site.

    Attributes:
        counts: (length,) int64, on the grid and in the order of its plan.
        event: What the release cost, for `dp_accounting`.
    """

    counts: npt.NDArray[np.int64]
    event: "DpEvent"


@dataclass(frozen=True, kw_only=True)
class LinearResponse:
    """How a mechanism's answers relate to what its site would say without noise and shrinkage.

    In coordinates along the eigenvectors of the proxy set's curvature, the answer is
    `gain * truth + noise`. Public: a function of the question and of what the release states.

    Attributes:
        gain: (num_features,) in [0, 1]; below 1 where the answer is shrunk.
        noise_variance: (num_features,) of the answer's own noise, per class.
        sampling_variance: (num_features,) of the truth itself, the site's rows being finite.
    """

    gain: Floats
    noise_variance: Floats
    sampling_variance: Floats


@dataclass(frozen=True, kw_only=True)
class EnsembleTarget:
    """What the student learns: the averaged answers of all sites.

    Attributes:
        log_odds: (num_proxy, num_classes - 1) float, against class 0.
        std: (num_proxy, num_classes - 1) float, standard deviation that is left in each entry of
            `log_odds` after averaging and denoising.
        num_sites: How many sites answered.
    """

    log_odds: Floats
    std: Floats
    num_sites: int

    @property
    def probabilities(self) -> Floats:
        """Class probabilities, shape (num_proxy, num_classes)."""
        return probabilities(self.log_odds)


def probabilities(log_odds: Floats) -> Floats:
    """Softmax of log-odds against class 0: (rows, classes - 1) -> (rows, classes)."""
    logits = np.concatenate([np.zeros((len(log_odds), 1)), log_odds], axis=1)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return share
