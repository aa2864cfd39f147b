"""What a run found and cost, put together for `summary.json`."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from fedistill.compress import Compression
from fedistill.config import RunConfig
from fedistill.evaluate.comparison import SiteComparison
from fedistill.evaluate.summary import (
    Metrics,
    Privacy,
    Shipped,
    SitePrivacy,
    SiteWire,
    Split,
    Stage,
    Summary,
    Views,
    Wire,
)
from fedistill.evaluate.wording import asked_sentence, guarantee_sentence, noise_sentence
from fedistill.federation.person import person_privacy
from fedistill.federation.simulation import unit_of
from fedistill.federation.up_front import events_of
from fedistill.mechanisms import has_float_noise, mechanism_named
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.receipts import Receipt

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run

_PACKAGES = ("fedistill", "flwr", "torch", "opendp", "dp-accounting", "onnxruntime", "scikit-learn")


def summarize(
    this: "Run",
    metrics: Metrics,
    gains: Mapping[str, SiteComparison],
    compression: Compression,
    receipts: Sequence[Receipt],
    answered: Sequence[str],
) -> Summary:
    """The summary of a finished run, in which `answered` are the sites of the target.

    Receipts of deployed sites stay with them: of these it states what they were asked.
    """
    public, config = this.public, this.config
    num_classes = len(public.classes)
    if this.simulation is None:
        paid = {site: _asked(this, site) for site in answered}
        guarantee = asked_sentence(
            paid, honest=config.min_honest_sites if config.trust == "secagg" else None
        )
    else:
        paid = _paid_by_site(config, receipts)
        guarantee = guarantee_sentence(
            paid, honest=config.min_honest_sites if config.trust == "secagg" else None
        )
    return Summary(
        run_id=this.name,
        started=this.started,
        task=f"{'binary' if num_classes == 2 else f'{num_classes}-class'} classification",
        dataset=public.name,
        mechanism=config.mechanism,
        seed=config.seed,
        split=Split(
            proxy_rows=len(public.proxy.rows),
            test_rows=len(public.test.rows),
            columns=len(public.proxy.columns),
            classes=public.classes,
            proxy_sha256=public.proxy.sha256,
        ),
        metrics=metrics,
        privacy=Privacy(
            noise=noise_sentence(paid),
            sites=paid,
            person=None if this.simulation is None else person_privacy(config, this.folder, paid),
        ),
        guarantee=guarantee,
        wire=Wire(
            sites={
                site: SiteWire(
                    bytes_up=this.wire.up.get(site, 0),
                    bytes_down=this.wire.down.get(site, 0),
                    bytes_evaluation=this.wire.evaluation.get(site, 0),
                )
                for site in paid
            }
        ),
        compression=tuple(Stage.model_validate(stage) for stage in compression.stages),
        shipped=Shipped(file=compression.shipped.name, reason=compression.reason),
        timings=this.timings,
        sites=gains,
        left_out=public.left_out,
        warnings=tuple(this.warnings),
        config=config.to_flat(),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
    )


def _asked(this: "Run", site: str) -> SitePrivacy:
    """What a deployed site was asked to pay at most, for labels and evaluation together.

    Its total is its own ledger's.
    """
    name = this.config.mechanism_of(site)[0]
    mechanism = mechanism_named(name)
    epsilon = this.config.epsilon
    if this.config.holdout_fraction > 0:
        events = events_of(this.config, this.public, this.questions[site])
        epsilon = epsilon_of(events, this.config.delta, mechanism.adjacency)
    return SitePrivacy(
        epsilon=epsilon,
        total_epsilon=None,
        remaining_epsilon=None,
        delta=this.config.delta,
        unit=unit_of(this.config, mechanism),
        adjacency=mechanism.adjacency,
        views=Views(everyone=None, server=None),
        mechanism=name,
        float_noise=has_float_noise(mechanism),
    )


def _paid_by_site(config: RunConfig, receipts: Sequence[Receipt]) -> dict[str, SitePrivacy]:
    """What each site with a receipt paid."""
    latest = {receipt.site: receipt for receipt in receipts}
    charged = {
        # A ledger of this run alone also knows of a charge that a kill wasted.
        site: sum(each.epsilon for each in receipts if each.site == site)
        if config.ledger_dir
        else receipt.total_epsilon
        for site, receipt in latest.items()
    }
    return {
        site: _paid(
            receipt,
            charged[site],
            config.mechanism_of(site)[0],
            float_noise=has_float_noise(mechanism_named(config.mechanism_of(site)[0])),
        )
        for site, receipt in latest.items()
    }


def _paid(receipt: Receipt, charged: float, mechanism: str, *, float_noise: bool) -> SitePrivacy:
    """With trust in nobody, the server and everyone else are promised the same.

    Where sites share their noise, `everyone` is promised less: all other sites may pool it.
    `charged` is what this run cost; the receipt has the totals.
    """
    return SitePrivacy(
        epsilon=charged,
        total_epsilon=receipt.total_epsilon,
        remaining_epsilon=receipt.remaining_epsilon,
        delta=receipt.delta,
        unit=receipt.unit,
        adjacency=receipt.adjacency,
        views=Views(
            everyone=receipt.alone_epsilon,
            server=receipt.total_epsilon,
        ),
        mechanism=mechanism,
        float_noise=float_noise,
    )
