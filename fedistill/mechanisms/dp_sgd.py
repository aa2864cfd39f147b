"""`dp-sgd`: a PyTorch network trained by noisy gradient descent; its labels are post-processing.

Adjacency: add or remove one record. Unit: record.

Release: one noised record count, then T = `sgd-steps` noised sums of gradients.

Sensitivity: each record takes part in a step with chance q = `sgd-sampling-rate`, by itself, and
its gradient over all parameters is scaled down to L2 norm at most C = `sgd-clip`. Inputs, hence
gradients, are functions of that record, of public rows and of earlier noised sums, and a network
that mixes records is refused (`private_networks`). So a sum moves by at most C when one record
comes or goes, and the count by one. q, T, C and the noise are public, and sums are divided by q
times the noised count: nothing depends on the exact number of records (PRIVACY rule 2).

Output law: each sum plus independent Gaussian noise of standard deviation C * sigma: T-fold
composition of the Poisson-sampled Gaussian mechanism (Abadi et al. 2016, "Deep Learning with
Differential Privacy", Algorithm 1; Mironov, Talwar and Zhang 2019, "Renyi Differential Privacy of
the Sampled Gaussian Mechanism"). The count has discrete Gaussian noise. sigma is the smallest that
the accountant which charges lets pass (PRIVACY rule 9). First weights are public.

**Floating point.** Opacus 1.6 clips, sums and adds noise in float32, and draws the noise from a
torch generator (see `noisy_descent`). The law above is that of real numbers: bits of the rounded
sums may say more (Mironov 2012, "On Significance of the Least Significant Bits for Differential
Privacy"), and batched float products may move other records' last bits (PRIVACY rule 8). So a site
answers only where its policy says `float-noise = "allow"`. What leaves is projected on the public
features and rounded to 16 bits, which hides bits in practice, and proves nothing.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import TeacherColumns, proxy_basis
from fedistill.labels import Floats, LabelQuestion, LabelRelease, LinearResponse
from fedistill.mechanisms.mechanism import Plan, Teacher
from fedistill.mechanisms.noisy_descent import (
    MOMENTUM,
    Descent,
    logits_of,
    secret_generator,
    train,
)
from fedistill.mechanisms.private_model import (
    PrivateModel,
    count_scale_for,
    fitting_rows,
    noised_count,
    require_package,
)
from fedistill.mechanisms.private_networks import check_network, inputs_of, network_named
from fedistill.mechanisms.sampled_gaussian import calibrate_noise, event_of
from fedistill.mechanisms.smooth_answers import (
    made_up_labels,
    response_of_rehearsals,
    weights_of,
)
from fedistill.privacy.accountant import calibrate_rho

LARGEST_DRIFT = 0.4
"""Standard deviation that noise alone may give a weight, on the scale of a learning rate of 1."""

_REHEARSALS = 2
_REHEARSED_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class DPSGDPlan(Plan):
    """A planned release.

    Attributes:
        noise_multiplier: sigma: the noise in a sum of gradients, over the clip.
        count_scale: Of the noise in the record count.
    """

    noise_multiplier: float
    count_scale: float

    def descent(self, num_rows: float) -> Descent:
        """How to train when the site's number of records is taken to be `num_rows`.

        The learning rate is lowered where a weight would else drift further than `LARGEST_DRIFT`
        by noise alone; all that decides on it is public or noised.
        """
        asked = self.question
        divisor = max(asked.sgd_sampling_rate * num_rows, 1.0)
        drift = drift_of(asked.sgd_steps, self.noise_multiplier / divisor)
        return Descent(
            steps=asked.sgd_steps,
            sampling_rate=asked.sgd_sampling_rate,
            clip=asked.sgd_clip,
            noise_multiplier=self.noise_multiplier,
            divisor=divisor,
            learning_rate=min(asked.sgd_learning_rate, LARGEST_DRIFT / drift) / asked.sgd_clip,
        )


class DPSGD(PrivateModel):
    """Noisy gradient descent; the law and its proof sketch stand in the module's docstring."""

    name = "dp-sgd"

    def plan(self, question: LabelQuestion, proxy: ProxySet, *, rows_at_least: int) -> DPSGDPlan:
        """Noise and its cost, from the question alone.

        Raises:
            PolicyRefusal: Opacus is not installed, there is no such network or it cannot be
                trained privately, or a setting is out of bounds; names the way out.
        """
        plan = _plan(question, rows_at_least)
        _rehearse(question, proxy)
        return plan

    def release(
        self, rows: LabelledRows, proxy: ProxySet, plan: Plan
    ) -> tuple[LabelRelease, Teacher]:
        """Count with noise, train with noise, label the proxy set."""
        if not isinstance(plan, DPSGDPlan):
            raise TypeError(f"plan must be a DPSGDPlan, not {type(plan).__name__}")
        question = plan.question
        fitting = fitting_rows(rows, question.num_classes)
        fitting &= TeacherColumns.of(proxy).readable(rows.rows)
        noised = noised_count(fitting, plan.count_scale)
        count = float(max(noised, plan.rows_at_least, 1))
        prepare = inputs_of(question.teacher, proxy)
        inputs = prepare(rows.rows)[fitting]
        targets = np.eye(question.num_classes, dtype=np.float32)[rows.labels[fitting]]
        network = network_named(question.teacher, inputs.shape[1], question.num_classes)
        train(network, inputs, targets, plan.descent(count), generator=secret_generator())
        weights = weights_of(proxy_basis(proxy), logits_of(network, prepare(proxy.rows)))
        return self.answer(weights, proxy, plan, {"noised-count": count})

    def response(
        self, question: LabelQuestion, release: LabelRelease, proxy: ProxySet
    ) -> LinearResponse:
        """Noise as rehearsed on public rows; the truth is what the network says without noise."""
        count = release.parameters["noised-count"]
        basis = proxy_basis(proxy)
        plan = _plan(question, rows_at_least=0)
        logits = [rehearsed_logits(plan, proxy, count, seed) for seed in range(2 * _REHEARSALS)]
        # Two trainings on the same labels differ by the noise of both.
        rehearsed = [
            weights_of(basis, one - other) / math.sqrt(2)
            for one, other in zip(logits[::2], logits[1::2], strict=True)
        ]
        return response_of_rehearsals(basis, rehearsed, count)


def rehearsed_logits(plan: DPSGDPlan, proxy: ProxySet, num_rows: float, seed: int) -> Floats:
    """What the network answers that learned from public rows and made-up labels, (num_proxy, K).

    Noise and sampling weigh as much as at a site of `num_rows` records; both are seeded, since all
    of this is public.
    """
    import torch

    question = plan.question
    inputs = inputs_of(question.teacher, proxy)(proxy.rows)
    size = int(min(max(num_rows, 1), len(inputs), _REHEARSED_ROWS))
    chosen = np.linspace(0, len(inputs) - 1, size).astype(np.int64)
    labels = made_up_labels(proxy_basis(proxy), question.num_classes)[chosen]
    random = np.random.default_rng(seed)
    network = network_named(question.teacher, inputs.shape[1], question.num_classes)
    train(
        network,
        inputs[chosen],
        np.eye(question.num_classes, dtype=np.float32)[labels],
        scaled_down(plan.descent(num_rows), num_rows, size),
        generator=torch.Generator().manual_seed(seed),
        sample=lambda rows, rate: np.flatnonzero(random.random(rows) < rate),
    )
    return logits_of(network, inputs)


def scaled_down(real: Descent, num_rows: float, size: int) -> Descent:
    """The same descent on `size` records: noise and sampling move its mean gradient as much.

    A mean over records that are sampled at rate q has a variance of (1 - q) / q over their number.
    """
    odds = (1 - real.sampling_rate) / real.sampling_rate * size / max(num_rows, size)
    rate = 1 / (1 + odds)
    return replace(
        real,
        sampling_rate=rate,
        noise_multiplier=real.noise_multiplier * rate * size / real.divisor,
        divisor=max(rate * size, 1.0),
    )


def drift_of(steps: int, noise: float) -> float:
    """Standard deviation of a weight after steps of nothing but noise, at learning rate 1.

    Momentum multiplies each step; a rate that decays linearly to zero leaves a third of the sum of
    squares.
    """
    return noise / (1 - MOMENTUM) * math.sqrt(steps / 3)


def _plan(question: LabelQuestion, rows_at_least: int) -> DPSGDPlan:
    require_package("opacus", DPSGD.name)
    _check(question)
    rho = calibrate_rho(question.epsilon, question.delta, DPSGD.adjacency)
    count_scale = count_scale_for(rho)
    steps, rate = question.sgd_steps, question.sgd_sampling_rate
    multiplier = calibrate_noise(question.epsilon, question.delta, steps, rate, count_scale)
    return DPSGDPlan(
        question=question,
        event=event_of(steps, rate, multiplier, count_scale),
        rows_at_least=rows_at_least,
        noise_multiplier=multiplier,
        count_scale=count_scale,
    )


def _check(question: LabelQuestion) -> None:
    if question.sgd_steps < 1:
        raise PolicyRefusal(f"sgd-steps={question.sgd_steps} must be at least 1: ask for more")
    if not 0 < question.sgd_sampling_rate <= 1:
        raise PolicyRefusal(
            f"sgd-sampling-rate={question.sgd_sampling_rate} must be above 0 and at most 1: it is "
            "the chance of a row to take part in a step"
        )
    for field, value in (
        ("sgd-clip", question.sgd_clip),
        ("sgd-learning-rate", question.sgd_learning_rate),
    ):
        if not 1e-6 <= value <= 1e6 or not math.isfinite(value):
            raise PolicyRefusal(f"{field}={value} must be from 1e-6 to 1e6: choose about 1")


@lru_cache(maxsize=8)
def _rehearse(question: LabelQuestion, proxy: ProxySet) -> None:
    """Check the network and take two steps on public rows, so that it fails before it costs."""
    inputs = inputs_of(question.teacher, proxy)(proxy.rows)[:_REHEARSED_ROWS]
    network = network_named(question.teacher, inputs.shape[1], question.num_classes)
    check_network(question.teacher, network, inputs, question.num_classes)
    targets = np.full((len(inputs), question.num_classes), 1 / question.num_classes, np.float32)
    descent = Descent(
        steps=2, sampling_rate=1.0, clip=1.0, noise_multiplier=1.0, divisor=1.0, learning_rate=0.1
    )
    try:
        train(network, inputs, targets, descent, generator=secret_generator())
        logits_of(network, inputs)
    except Exception as error:
        raise PolicyRefusal(
            f"teacher={question.teacher!r} cannot be trained on public rows "
            f"({type(error).__name__}: {error}): make every parameter take part in the answer"
        ) from error
