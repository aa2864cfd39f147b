"""Summaries with every optional part, from figures that the real functions computed."""

import numpy as np

from fedistill.evaluate.calibration import calibration
from fedistill.evaluate.comparison import SiteComparison, compare
from fedistill.evaluate.federated import federated_scores
from fedistill.evaluate.metrics import class_scores
from fedistill.evaluate.summary import SiteWire, Summary

SITES = {
    "STMW": (0.9, 2_614, 0.29, 900),
    "SVHC": (0.5, 1_480, 0.25, 420),
    "other": (1.6, 6_420, 0.38, 1_100),
    "SVHD": (0.2, 58, None, 24),
    "hospital_with_a_long_name": (0.7, 903, 0.08, 2),
}
"""Strength of a site's own model, its rows, its weight and the test rows of its kind."""


def answers(seed: int, labels: np.ndarray, classes: int, strength: float) -> np.ndarray:
    """Probabilities that know the labels as well as `strength` says, and are a little too sure."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(len(labels), classes)) * 0.8
    logits += 0.8 * strength * np.eye(classes)[labels]
    logits = 1.5 * logits + np.linspace(1.0, 0.0, classes)
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True)


def with_every_part(summary: Summary, classes: tuple[str, ...], sites: int) -> Summary:
    """`summary` of the first `sites` sites above and other classes, with each optional part."""
    generator = np.random.default_rng(0)
    shares = np.arange(len(classes), 0, -1.0) ** 2
    labels = generator.choice(len(classes), size=4500, p=shares / shares.sum())
    student = answers(1, labels, len(classes), 1.0)
    chosen = list(SITES.items())[:sites]
    compared = {
        name: _site(labels, student, len(classes), place, *figures)
        for place, (name, figures) in enumerate(chosen)
    }
    paid = next(iter(summary.privacy.sites.values()))
    names = [name for name, _ in chosen]
    wire = SiteWire(bytes_up=12_126, bytes_down=771_204, bytes_evaluation=9_128)
    metrics = summary.metrics.model_copy(
        update={
            "teachers": {name: compared[name].everyone.local_private for name in names},
            "student": next(iter(compared.values())).everyone.student,
            "student_classes": dict(zip(classes, class_scores(student, labels), strict=True)),
            "student_calibration": calibration(student, labels),
        }
    )
    return summary.model_copy(
        update={
            "split": summary.split.model_copy(update={"classes": classes}),
            "metrics": metrics,
            "privacy": summary.privacy.model_copy(update={"sites": dict.fromkeys(names, paid)}),
            "wire": summary.wire.model_copy(update={"sites": dict.fromkeys(names, wire)}),
            "sites": compared,
            "left_out": {"SVI": "3 rows are fewer than rows-at-least=20"},
            "warnings": ("SVI is left out: 3 rows are fewer than rows-at-least=20",),
        }
    )


def with_federated(summary: Summary, confusion: tuple = ((80, 20), (10, 40))) -> Summary:
    """`summary` of a run whose sites held rows out."""
    counts = np.array(confusion, float)
    found = federated_scores(
        counts,
        counts[None],
        confusion_std=np.full((2, 2), 0.1),
        score_std=0.1,
        classes=summary.split.classes,
        sites=["bank_a", "bank_b"],
    )
    metrics = summary.metrics.model_copy(update={"federated": found})
    return summary.model_copy(update={"metrics": metrics})


def _site(
    labels: np.ndarray,
    student: np.ndarray,
    classes: int,
    place: int,
    strength: float,
    rows: int,
    weight: float | None,
    kind: int,
) -> SiteComparison:
    local = answers(10 + place, labels, classes, strength)
    private = answers(20 + place, labels, classes, strength * 0.6)
    own = slice(place * 600, place * 600 + kind)
    return SiteComparison(
        rows=rows,
        misfit_rows=3 * place,
        weight=weight,
        everyone=compare(local=local, local_private=private, student=student, labels=labels),
        own=compare(
            local=local[own], local_private=private[own], student=student[own], labels=labels[own]
        ),
    )
