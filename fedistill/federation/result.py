"""What a run found and cost, put together for `summary.json`."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from fedistill.compress import Compression
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
from fedistill.evaluate.wording import guarantee_sentence, noise_sentence
from fedistill.federation.person import person_privacy
from fedistill.mechanisms import has_float_noise, mechanism_named
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
) -> Summary:
    """The summary of a finished run."""
    simulation, config = this.simulation, this.config
    num_classes = len(simulation.table.classes)
    latest = {receipt.site: receipt for receipt in receipts}
    charged = {
        # A ledger of this run alone also knows of a charge that a kill wasted.
        site: sum(each.epsilon for each in receipts if each.site == site)
        if config.ledger_dir
        else receipt.total_epsilon
        for site, receipt in latest.items()
    }
    paid = {
        site: _paid(
            receipt,
            charged[site],
            config.mechanism_of(site)[0],
            float_noise=has_float_noise(mechanism_named(config.mechanism_of(site)[0])),
        )
        for site, receipt in latest.items()
    }
    return Summary(
        run_id=this.name,
        started=this.started,
        task=f"{'binary' if num_classes == 2 else f'{num_classes}-class'} classification",
        dataset=simulation.table.name,
        mechanism=config.mechanism,
        seed=config.seed,
        split=Split(
            proxy_rows=len(simulation.proxy.rows),
            test_rows=len(simulation.test.rows),
            columns=len(simulation.proxy.columns),
            classes=simulation.table.classes,
            proxy_sha256=simulation.proxy.sha256,
        ),
        metrics=metrics,
        privacy=Privacy(
            noise=noise_sentence(paid),
            sites=paid,
            person=person_privacy(config, this.folder, paid),
        ),
        guarantee=guarantee_sentence(
            paid, honest=config.min_honest_sites if config.trust == "secagg" else None
        ),
        wire=Wire(
            sites={
                site: SiteWire(
                    bytes_up=this.wire.up.get(site, 0),
                    bytes_down=this.wire.down.get(site, 0),
                    bytes_evaluation=this.wire.evaluation.get(site, 0),
                )
                for site in latest
            }
        ),
        compression=tuple(Stage.model_validate(stage) for stage in compression.stages),
        shipped=Shipped(file=compression.shipped.name, reason=compression.reason),
        timings=this.timings,
        sites=gains,
        left_out=simulation.left_out,
        warnings=tuple(this.warnings),
        config=config.to_flat(),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
    )


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
