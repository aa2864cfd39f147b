import random
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

from fedistill.errors import PolicyRefusal
from fedistill.teachers import TEACHERS, TeachesMany, rehearse, teacher_named
from fedistill.teachers.estimators import EstimatorTeacher

BUILT_IN = ("logistic", "boosting", "mlp")


def make_shard(num_rows: int, num_classes: int = 2, seed: int = 0):
    """Two informative columns, one of noise, a heavy tail and one without a value."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num_rows, 5)).astype(np.float32)
    logits = np.stack([(k - 0.5) * (features[:, 0] + features[:, k % 2]) for k in range(9)], 1)
    labels = (2 * logits[:, :num_classes] + generator.gumbel(size=(num_rows, num_classes))).argmax(
        axis=1
    )
    features[:, 3] = np.exp(4 * features[:, 3])
    features[:, 4] = np.nan
    features[generator.random(features.shape) < 0.1] = np.nan
    return features, labels


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_it_learns(name: str, num_classes: int) -> None:
    features, labels = make_shard(400, num_classes)
    fresh, truth = make_shard(400, num_classes, seed=1)
    answer = teacher_named(name, num_classes).fit(features, labels).predict_proba(fresh)
    chance = np.bincount(truth).max() / len(truth)
    assert (answer.argmax(axis=1) == truth).mean() > chance + 0.1


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("num_rows", [0, 1, 2, 5, 30])
@pytest.mark.parametrize("lowest", [0, 1])
def test_rows_may_be_few_of_one_class_or_none(name: str, num_rows: int, lowest: int) -> None:
    features, labels = make_shard(num_rows)
    asked, _ = make_shard(7, seed=1)
    teacher = teacher_named(name, 3).fit(features, np.maximum(labels, lowest))
    answer = teacher.predict_proba(asked)
    assert answer.shape == (7, 3)
    assert (answer >= 0).all()
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    if num_rows == 0:
        np.testing.assert_allclose(answer, 1 / 3)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("wild", [np.inf, -np.inf, 3e38, 1e-40])
def test_wild_values_do_not_raise(name: str, wild: float) -> None:
    features, labels = make_shard(30)
    features[::3, 0] = wild
    features[:, 2] = wild
    answer = teacher_named(name, 2).fit(features, labels).predict_proba(features)
    assert np.isfinite(answer).all()


@pytest.mark.parametrize("name", ["logistic", "boosting"])
def test_a_class_without_rows_gets_no_probability(name: str) -> None:
    features, labels = make_shard(60)
    answer = teacher_named(name, 4).fit(features, labels * 3).predict_proba(features)
    assert (answer[:, 1:3] == 0).all()
    assert (answer[:, [0, 3]] > 0).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_nothing_is_left_of_what_was_learned_before(name: str) -> None:
    asked, _ = make_shard(9, seed=5)
    teacher = teacher_named(name, 2).fit(*make_shard(50, seed=1))
    again = teacher.fit(*make_shard(40, seed=2)).predict_proba(asked)
    fresh = teacher_named(name, 2).fit(*make_shard(40, seed=2)).predict_proba(asked)
    np.testing.assert_array_equal(again, fresh)


def test_many_networks_trained_at_once_are_those_trained_apart() -> None:
    shards = [make_shard(size, seed=size) for size in (3, 20, 64, 150, 1)]
    asked, _ = make_shard(20, seed=9)
    teacher = teacher_named("mlp", 2)
    assert isinstance(teacher, TeachesMany)
    for shard, model in zip(shards, teacher.fit_many(shards), strict=True):
        alone = teacher_named("mlp", 2).fit(*shard)
        np.testing.assert_allclose(
            model.predict_proba(asked), alone.predict_proba(asked), atol=1e-3
        )


def test_an_empty_shard_among_many_answers_uniform() -> None:
    teacher = teacher_named("mlp", 2)
    assert isinstance(teacher, TeachesMany)
    models = teacher.fit_many([make_shard(20), make_shard(0), make_shard(5)])
    np.testing.assert_array_equal(models[1].predict_proba(make_shard(4)[0]), np.full((4, 2), 0.5))


def test_global_generators_neither_steer_a_teacher_nor_are_moved_by_it() -> None:
    """A shard's teacher draws the same whatever the teachers before it drew."""
    features, labels = make_shard(80)
    features = np.nan_to_num(features)
    teacher = EstimatorTeacher(lambda: SGDClassifier(loss="log_loss", max_iter=50), 2)
    answers = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        answers.append(teacher.fit(features, labels).predict_proba(features))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        assert before == after
    np.testing.assert_array_equal(*answers)


def test_an_import_path_names_an_estimator() -> None:
    features, labels = make_shard(300)
    teacher = teacher_named("sklearn.naive_bayes:GaussianNB", 2).fit(features, labels)
    assert (teacher.predict_proba(features).argmax(axis=1) == labels).mean() > 0.6


def test_an_estimator_that_refuses_missing_values_gets_medians() -> None:
    features, labels = make_shard(60)
    # Of the column without a value nothing can be learned, so it is zero for all.
    filled = features.copy()
    for column in filled.T:
        column[np.isnan(column)] = 0 if np.isnan(column).all() else np.nanmedian(column)
    by_hand = GaussianNB().fit(filled, labels).predict_proba(filled)
    teacher = teacher_named("sklearn.naive_bayes:GaussianNB", 2).fit(features, labels)
    np.testing.assert_allclose(teacher.predict_proba(features), by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("boostin", "did you mean 'boosting'"),
        ("no_such_package:Model", "cannot be imported"),
        ("sklearn.svm:NoSuchModel", "cannot be imported"),
        ("sklearn.svm:LinearSVC", "LinearSVC without predict_proba"),
        ("os:getcwd", "without fit and predict_proba"),
        ("os.path:join", "called without arguments"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_refused(name: str, says: str) -> None:
    with pytest.raises(PolicyRefusal, match=says):
        teacher_named(name, 2)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_an_optional_teacher_names_its_extra_where_it_is_missing(name: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PolicyRefusal, match=rf"pip install 'fedistill\[{name}\]'"):
        teacher_named(name, 2)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_an_optional_teacher_learns(name: str) -> None:
    pytest.importorskip(name, reason=f"needs fedistill[{name}]")
    features, labels = make_shard(200)
    answer = teacher_named(name, 2).fit(features, labels).predict_proba(features)
    assert (answer.argmax(axis=1) == labels).mean() > 0.6


class FailsOnMissing:
    def fit(self, features, labels):
        if np.isnan(features).any():
            raise ValueError("no missing values here")
        return self

    def predict_proba(self, features):
        return np.full((len(features), 2), 0.5)


class AnswersScores(FailsOnMissing):
    def fit(self, features, labels):
        return self

    def predict_proba(self, features):
        return np.full((len(features), 2), 3.0)


@pytest.mark.parametrize(
    ("name", "says"),
    [("FailsOnMissing", "no missing values here"), ("AnswersScores", "must give probabilities")],
)
def test_a_rehearsal_on_public_rows_finds_what_would_fail(name: str, says: str) -> None:
    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    with pytest.raises(PolicyRefusal, match=says):
        rehearse(f"{__name__}:{name}", 2, features)


@pytest.mark.parametrize("name", ["", *BUILT_IN, "sklearn.naive_bayes:GaussianNB"])
def test_a_rehearsal_passes_what_works(name: str) -> None:
    rehearse(name, 3, make_shard(30)[0])


def test_the_first_teacher_is_the_default() -> None:
    assert next(iter(TEACHERS)) == "logistic"
    features, labels = make_shard(40)
    first, named = (teacher_named(name, 2).fit(features, labels) for name in ("", "logistic"))
    np.testing.assert_array_equal(first.predict_proba(features), named.predict_proba(features))
