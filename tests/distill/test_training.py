"""Which training a student gets, by its name and the config's keys."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fedistill.data import ProxySet, numbers
from fedistill.distill import training
from fedistill.distill.students import predict_probabilities
from fedistill.distill.target import Ensemble
from fedistill.distill.trainer import train_student
from fedistill.distill.training import Learning, distil
from fedistill.features import proxy_basis
from fedistill.labels import EnsembleTarget

OWN = "tests.distill.test_network_students:small"


def ensemble_of(proxy: ProxySet, num_classes: int) -> Ensemble:
    """Weights on the public features, drawn at random, and the target that follows."""
    basis = proxy_basis(proxy)
    weights = np.random.default_rng(0).normal(size=(basis.values.shape[1], num_classes)) * 4
    log_odds = basis.values @ (weights[:, 1:] - weights[:, :1])
    target = EnsembleTarget(log_odds=log_odds, std=np.zeros(log_odds.shape), num_sites=3)
    return Ensemble(
        basis=basis,
        weights=weights,
        target=target,
        site_shares=(1.0,),
        outliers=training_outliers(),
    )


def training_outliers():
    from fedistill.distill.outliers import no_outliers

    return no_outliers(1)


@pytest.fixture(scope="module")
def digits() -> ProxySet:
    rows = load_digits().data[:300].astype(np.float32)
    return ProxySet(schema=numbers(f"x{j}" for j in range(64)), rows=rows)


@pytest.mark.parametrize(
    ("student", "augmentation", "images"),
    [
        ("mlp", "auto", False),
        ("mlp", "none", False),
        ("cnn", "auto", True),
        ("vit", "none", True),
        (OWN, "auto", False),
        (OWN, "none", False),
        (OWN, "affine", True),
    ],
)
def test_rows_are_images_for_students_of_images_alone(
    student: str, augmentation: str, images: bool
) -> None:
    assert Learning(student=student, augmentation=augmentation).of_images == images


def test_an_mlp_learns_as_it_did_before_there_were_others(digits: ProxySet, monkeypatch) -> None:
    """The defaults hand a table's student to the trainer of tables as it is."""
    ensemble, asked = ensemble_of(digits, 3), {}
    monkeypatch.setattr(training, "train_student", lambda *given, **named: asked.update(named))
    distil(digits, ensemble, Learning(), seed=4)
    assert asked == {
        "relabel": ensemble.label,
        "student": "mlp",
        "seed": 4,
        "progress": None,
    }


@pytest.mark.parametrize(
    "learning",
    [
        Learning(student=OWN),
        # What a moved image is, a function drawn at random does not tell.
        Learning(student="cnn", augmentation="none", folds=0, epochs=150),
    ],
)
def test_a_student_comes_to_agree_with_the_ensemble(digits: ProxySet, learning: Learning) -> None:
    ensemble = ensemble_of(digits, 3)
    student = distil(digits, ensemble, learning, seed=0)
    said = predict_probabilities(student, digits.rows).argmax(axis=1)
    assert not student.training
    assert (said == ensemble.target.probabilities.argmax(axis=1)).mean() > 0.8


def test_the_scale_of_a_network_of_ones_own_is_that_of_the_target(digits: ProxySet) -> None:
    ensemble = ensemble_of(digits, 3)
    student = train_student(digits, ensemble.target, student=OWN, seed=0)
    with torch.no_grad():
        logits = student(torch.tensor(digits.rows))
    found = (logits[:, 1:] - logits[:, :1]).numpy()
    assert np.corrcoef(found.ravel(), ensemble.target.log_odds.ravel())[0, 1] > 0.9
    assert found.std() == pytest.approx(ensemble.target.log_odds.std(), rel=0.2)


def test_labels_are_spread_when_asked_and_seen_by_the_student(digits, monkeypatch) -> None:
    ensemble, taught = ensemble_of(digits, 3), []

    def remember(student, images, targets, **named):
        taught.append(targets.numpy())

    monkeypatch.setattr(training, "distil_images", remember)
    learning = Learning(student="cnn", folds=0)
    for each in (learning, replace(learning, label_propagation=True)):
        distil(digits, ensemble, each, seed=0)
    as_it_is, spread = taught
    np.testing.assert_allclose(as_it_is, ensemble.target.probabilities, atol=1e-6)
    assert np.abs(spread - as_it_is).max() > 0.05
    np.testing.assert_allclose(spread.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "folds", "checked"), [(300, 3, True), (300, 0, False), (29, 3, False)]
)
def test_labels_are_checked_where_folds_are_asked_for_and_images_suffice(
    digits, monkeypatch, rows: int, folds: int, checked: bool
) -> None:
    few = replace(digits, rows=digits.rows[:rows])
    ensemble, called = ensemble_of(few, 3), []
    monkeypatch.setattr(training, "distil_images", lambda *_, **named: called.append(None))
    monkeypatch.setattr(
        training, "distil_cross_fitted", lambda *_, **named: called.append(named["crossing"].folds)
    )
    distil(few, ensemble, Learning(student="cnn", folds=folds), seed=0)
    assert called == [folds if checked else None]
