"""Teachers of every mechanism learn what the proxy set's encoder shows, and not the raw columns."""

import sys
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from torch import nn

from fedistill.data import LabelledRows, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import TeacherColumns
from fedistill.labels import LabelRelease, probabilities
from fedistill.mechanisms import dp_ebm, dp_sgd, mechanism_named, private_model, sharded
from fedistill.mechanisms.clipped import teacher_log_odds
from tests.encoders import proxy_with
from tests.mechanisms.toy import ask

ENCODER = "tests.encoders:products"
COLUMNS = tuple(f"x{number}" for number in range(8))
ASKED = {
    "sharded": {"teacher": "logistic", "shards": 20, "queries": 200, "epsilon": 16.0},
    "clipped": {"teacher": "logistic", "epsilon": 2000.0, "clip_norm": 50.0},
    "dp-sgd": {"teacher": "encoded_networks:linear", "sgd_steps": 60, "sgd_sampling_rate": 0.2},
    "dp-ebm": {"epsilon": 8.0},
}
each_mechanism = pytest.mark.parametrize("name", ASKED)


def crossed(num_rows: int, seed: int) -> LabelledRows:
    """The label is the sign of a product of two columns: each column alone says nothing of it."""
    rows = np.random.default_rng(seed).normal(size=(num_rows, len(COLUMNS))).astype(np.float32)
    labels = (rows[:, 0] * rows[:, 1] > 0).astype(np.int64)
    return LabelledRows(columns=COLUMNS, rows=rows, labels=labels, num_classes=2)


@pytest.fixture(autouse=True)
def linear_network(monkeypatch) -> None:
    module = ModuleType("encoded_networks")
    module.linear = lambda inputs, classes: nn.Linear(inputs, classes)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def answer(name: str, proxy: ProxySet, rows: LabelledRows) -> LabelRelease:
    mechanism = mechanism_named(name)
    asked = ask(proxy, name, **({"epsilon": 8.0} | ASKED[name]))
    return mechanism.release(rows, proxy, mechanism.plan(asked, proxy, rows_at_least=20))[0]


@each_mechanism
def test_a_teacher_learns_what_only_the_encoder_shows(name: str) -> None:
    """Linear and additive models of raw columns learn noise, which seldom points along the one
    feature of eight that counts.
    """
    public = crossed(400, seed=1)
    found = answer(name, proxy_with(ENCODER, public.rows), crossed(1500, seed=0))
    auc = roc_auc_score(public.labels, probabilities(found.log_odds)[:, 1])
    assert auc > 0.9


@pytest.mark.parametrize(
    ("name", "trains", "num_learned"),
    [
        (
            "sharded",
            (sharded, sharded, "sum_of_answers"),
            lambda given: sum(len(y) for _, y in given[1]),
        ),
        ("dp-sgd", (private_model, dp_sgd, "train"), lambda given: len(given[1])),
        ("dp-ebm", (private_model, dp_ebm, "train_and_answer"), lambda given: len(given[0])),
    ],
)
def test_a_row_that_the_encoder_cannot_read_is_neither_counted_nor_learned(
    name, trains, num_learned, monkeypatch
) -> None:
    counts, module, function = trains
    counted, learned = [], []
    noise, train = counts.add_noise, getattr(module, function)

    def add_noise(exact, scale):
        counted.append(exact)
        return noise(exact, scale)

    def spied(*given, **named):
        learned.append(num_learned(given))
        return train(*given, **named)

    monkeypatch.setattr(counts, "add_noise", add_noise)
    monkeypatch.setattr(module, function, spied)
    rows = crossed(200, seed=2)
    rows.rows[::4] = 1e6
    answer(name, proxy_with(ENCODER, crossed(300, seed=1).rows), rows)
    assert learned[-1] == 150
    assert [150] in [exact.tolist() for exact in counted]


def test_the_teacher_of_clipped_does_not_learn_from_a_row_that_the_encoder_cannot_read() -> None:
    proxy = proxy_with(ENCODER, crossed(300, seed=1).rows)
    asked, rows = ask(proxy, "clipped", **ASKED["clipped"]), crossed(200, seed=2)
    kept = rows.take(np.flatnonzero(np.arange(200) % 4))
    rows.rows[::4] = 1e6
    np.testing.assert_array_equal(
        teacher_log_odds(rows, proxy, asked), teacher_log_odds(kept, proxy, asked)
    )


@each_mechanism
def test_a_site_whose_rows_no_encoder_can_read_answers_all_the_same(name: str) -> None:
    """PRIVACY rule 3."""
    rows = crossed(40, seed=3)
    rows.rows[:] = np.inf
    proxy = proxy_with(ENCODER, crossed(120, seed=1).rows)
    assert answer(name, proxy, rows).codes.shape == (120, 1)


def test_a_shards_teacher_sees_each_row_as_it_is_encoded_alone(monkeypatch) -> None:
    """PRIVACY rule 8: what shards hold is, bit by bit, the embedding of single rows."""
    seen = []
    real = sharded.sum_of_answers
    monkeypatch.setattr(
        sharded,
        "sum_of_answers",
        lambda question, shards, asked: seen.append(shards) or real(question, shards, asked),
    )
    rows = crossed(60, seed=4)
    proxy = proxy_with(ENCODER, crossed(120, seed=1).rows)
    answer("sharded", proxy, rows)
    columns = TeacherColumns.of(proxy)
    alone = {columns.transform(rows.rows[[number]]).tobytes() for number in range(60)}
    dealt = {row.tobytes() for features, _ in seen[0] for row in features}
    assert dealt == alone


def test_a_cnn_is_refused_embeddings_before_anything_is_charged() -> None:
    proxy = proxy_with("tests.encoders:as_they_are", np.eye(64, dtype=np.float32))
    asked = ask(proxy, "dp-sgd", teacher="cnn")
    with pytest.raises(PolicyRefusal, match=r"'cnn' learns pixels.*choose teacher='mlp'"):
        mechanism_named("dp-sgd").plan(asked, proxy, rows_at_least=20)


def test_dp_ebm_refuses_embeddings_of_more_than_1000_numbers() -> None:
    proxy = proxy_with("tests.encoders:of_1001_numbers", crossed(60, seed=1).rows)
    with pytest.raises(PolicyRefusal, match=r"has 1001 .*an encoder of fewer numbers"):
        mechanism_named("dp-ebm").plan(ask(proxy, "dp-ebm"), proxy, rows_at_least=20)


@pytest.mark.parametrize("name", ["sharded", "clipped", "dp-sgd", "dp-ebm"])
def test_an_unfit_encoder_is_refused_by_the_plan(name: str) -> None:
    proxy = proxy_with("tests.encoders:counting", crossed(60, seed=1).rows)
    asked = ask(proxy, name, **ASKED[name])
    with pytest.raises(PolicyRefusal, match="another answer the second time"):
        mechanism_named(name).plan(asked, proxy, rows_at_least=20)
