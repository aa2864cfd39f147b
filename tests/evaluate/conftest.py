from datetime import UTC, datetime

import pytest
from examples import with_every_part

from fedistill.evaluate.metrics import Scores
from fedistill.evaluate.summary import (
    Metrics,
    PersonPrivacy,
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
from fedistill.evaluate.wording import guarantee_sentence

BANKS = ("bank_a", "bank_b", "bank_c")


def _scores(auc: float, accuracy: float, log_loss: float, ece: float) -> Scores:
    return Scores(
        auc=auc, accuracy=accuracy, log_loss=log_loss, ece=ece, auc_standard_error=0.00913
    )


def _site(earlier: float = 0.0, epsilon: float = 0.9998, budget: float = 1.0) -> SitePrivacy:
    total = earlier + epsilon
    return SitePrivacy(
        epsilon=epsilon,
        total_epsilon=total,
        remaining_epsilon=budget - total,
        delta=1e-5,
        unit="record",
        adjacency="add-remove",
        views=Views(everyone=total, server=total),
        mechanism="dp-probe",
    )


@pytest.fixture
def summary() -> Summary:
    """Three banks on the credit data, one of which had paid for an earlier run."""
    sites = {
        "bank_a": _site(),
        "bank_b": _site(),
        "bank_c": _site(earlier=0.5, budget=2.0),
    }
    stages = (
        ("float", "float32", False, 25_282, 113_402, 0.7702, 1.0, 0.0412, 1.238, 102061),
        ("pruned", "float32", False, 7_618, 42_730, 0.7698, 0.9962, 0.0389, 0.914, 38457),
        ("quantized", "int8", False, 25_282, 46_120, 0.7701, 0.9968, 0.0533, 1.041, 41508),
        ("pruned+quantized", "int8", True, 7_618, 18_944, 0.7695, 0.9941, 0.0457, 0.902, 17049),
    )
    return Summary(
        run_id="20261123-224512-credit",
        started=datetime(2026, 11, 23, 22, 45, 12, tzinfo=UTC),
        task="binary classification",
        dataset="credit_default",
        mechanism="dp-probe",
        seed=0,
        split=Split(
            proxy_rows=6000,
            test_rows=4500,
            columns=32,
            classes=("no default", "default"),
            proxy_sha256="9f2c" * 16,
        ),
        metrics=Metrics(
            student=_scores(0.76213, 0.81711, 0.44019, 0.01873),
            student_fp32=_scores(0.76291, 0.81756, 0.43951, 0.01792),
            ensemble=_scores(0.76342, 0.81422, 0.44310, 0.02650),
            teachers={
                "bank_a": _scores(0.74815, 0.80633, 0.46125, 0.04411),
                "bank_b": _scores(0.75530, 0.81200, 0.45037, 0.03120),
                "bank_c": _scores(0.75102, 0.81044, 0.45540, 0.03697),
            },
            central_reference=_scores(0.76812, 0.81978, 0.43377, 0.01125),
        ),
        privacy=Privacy(
            noise="exact discrete Gaussian, no floating-point noise",
            sites=sites,
            person=PersonPrivacy(one_site=1.4998, every_site=2.0417, delta=1e-5),
        ),
        guarantee=guarantee_sentence(sites),
        wire=Wire(
            sites={
                name: SiteWire(bytes_up=12_126, bytes_down=771_204, bytes_evaluation=9_128)
                for name in BANKS
            }
        ),
        compression=tuple(
            Stage(**dict(zip(Stage.model_fields, stage, strict=True))) for stage in stages
        ),
        shipped=Shipped(
            file="student.onnx",
            reason="Shipped the pruned+quantized file, 6.0 times smaller than the float student, "
            "which agrees with it on 99.41% of the proxy rows and loses 0.0007 AUC against the "
            "target; at batch 1 it is not faster.",
        ),
        timings={
            "hello": 4.2,
            "labels": 38.9,
            "target": 2.4,
            "distil": 31.7,
            "compress": 21.3,
            "evaluate": 9.6,
        },
        config={
            "dataset": "credit_default",
            "partition": "quantile:LIMIT_BAL",
            "mechanism": "dp-probe",
            "epsilon": 1.0,
            "delta": 1e-5,
            "num-sites": 3,
            "min-sites": 2,
            "probe-steps": 8,
            "secure-aggregation": False,
            "trust": "none",
            "prune-ratio": 0.5,
            "quantize": "int8",
            "output-dir": "",
            "seed": 0,
        },
        versions={
            "fedistill": "0.1.0",
            "python": "3.11.7",
            "flwr": "1.41.0",
            "torch": "2.13.0",
            "onnxruntime": "1.31.0",
            "opendp": "0.16.0",
            "dp-accounting": "0.6.0",
        },
    )


@pytest.fixture
def receipts(summary: Summary) -> list[dict[str, object]]:
    """One release of labels by each bank."""
    return [
        {
            "time": f"2026-11-23T22:45:{50 + place}Z",
            "run": summary.run_id,
            "site": name,
            "population": f"{name}/customers",
            "what": "6,000 labels of dp-probe as 16-bit integers",
            "question": "5b1d" * 16,
            "bytes": 12_126,
            "sha256": f"{place}c7e" * 16,
            "epsilon": site.epsilon,
            "total_epsilon": site.total_epsilon,
            "remaining_epsilon": site.remaining_epsilon,
            "delta": site.delta,
            "adjacency": site.adjacency,
            "unit": site.unit,
            "cached": False,
        }
        for place, (name, site) in enumerate(summary.privacy.sites.items())
    ]


@pytest.fixture
def one_site_left_out(summary: Summary) -> Summary:
    """A deployment's summary: no figures that need all rows in one place, and a site missing."""
    kept = {name: site for name, site in summary.privacy.sites.items() if name != "bank_b"}
    metrics = summary.metrics.model_copy(update={"teachers": None, "central_reference": None})
    return summary.model_copy(
        update={
            "metrics": metrics,
            "privacy": summary.privacy.model_copy(update={"sites": kept}),
            "warnings": ("bank_b was left out: no answer within 600 s",),
        }
    )


@pytest.fixture
def five_sites(summary: Summary) -> Summary:
    """Two classes and five hospitals, with each optional part."""
    return with_every_part(summary, ("negative", "positive"), 5)


@pytest.fixture
def three_classes(summary: Summary) -> Summary:
    """Three classes and three hospitals, with each optional part."""
    return with_every_part(summary, ("healthy", "hypothyroid", "hyperthyroid"), 3)
