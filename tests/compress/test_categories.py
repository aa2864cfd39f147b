"""Categories from the proxy set to the shipped file: their codes go in, the graph does the rest."""

import json

import numpy as np
import onnx
import pytest
from sklearn.metrics import roc_auc_score

from fedistill.compress import Compression, compress, load_student, predict_file
from fedistill.compress.export import export_student
from fedistill.compress.settings import Settings
from fedistill.data import ProxySet, numbers
from fedistill.data.schema import ColumnSchema, Kind
from fedistill.distill.encoding import Rows
from fedistill.distill.students import TabularStudent, predict_probabilities
from fedistill.distill.trainer import Recipe, train_student
from fedistill.labels import EnsembleTarget

CITIES = ("Aachen", "Bonn", "Köln", "Trier", "Ulm", "Wesel")
SCHEMA = (
    ColumnSchema(name="age"),
    ColumnSchema(name="city", kind=Kind.CATEGORY, categories=CITIES),
    ColumnSchema(name="born", kind=Kind.DATE),
    ColumnSchema(name="sex", kind=Kind.CATEGORY, categories=("f", "m")),
    ColumnSchema(name="ill", kind=Kind.BOOLEAN),
    ColumnSchema(name="notes", kind=Kind.EMPTY),
)
LOG_ODDS = np.array([2.0, -2.0, 1.5, -1.0, 2.5, -3.0, -0.5])
"""By city, last where it is missing: no order of the codes explains it."""


def label(rows: Rows) -> np.ndarray:
    code = np.where(np.isnan(rows[:, 1]), len(CITIES), rows[:, 1])
    return LOG_ODDS[code.astype(int), None]


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    random = np.random.default_rng(1)
    rows = np.stack(
        [
            random.normal(50, 10, 1200),
            random.choice([*range(len(CITIES)), np.nan], size=1200),
            random.integers(-9000, 9000, 1200),
            random.integers(0, 2, 1200),
            random.integers(0, 2, 1200),
            np.full(1200, np.nan),
        ],
        axis=1,
    )
    return ProxySet(schema=SCHEMA, rows=rows.astype(np.float32))


@pytest.fixture(scope="module")
def target(proxy: ProxySet) -> EnsembleTarget:
    return EnsembleTarget(
        log_odds=label(proxy.rows), std=np.zeros((len(proxy.rows), 1)), num_sites=3
    )


@pytest.fixture(scope="module")
def student(proxy: ProxySet, target: EnsembleTarget) -> TabularStudent:
    recipe = Recipe(epochs=1, steps=400)
    return train_student(proxy, target, relabel=label, seed=0, recipe=recipe)


@pytest.fixture(scope="module")
def made(student, proxy, target, tmp_path_factory) -> Compression:
    return compress(
        student,
        proxy,
        target,
        classes=("no", "yes"),
        settings=Settings(prune_ratio=0.25, quantize="int8"),
        directory=tmp_path_factory.mktemp("categories"),
        seed=0,
    )


def odd_rows(proxy: ProxySet) -> Rows:
    """Rows with missing cells, codes that the schema lacks, and infinities."""
    rows = proxy.rows[:9].copy()
    rows[0] = np.nan
    rows[1, 1] = rows[2, 3] = np.nan
    rows[3:6, 1] = [6, -1, 2.5]
    rows[6, 3] = 2
    rows[7], rows[8] = np.inf, -np.inf
    return rows


def test_the_student_learns_what_only_the_category_tells(student, proxy):
    answers = predict_probabilities(student, proxy.rows)[:, 1]
    expected = 1 / (1 + np.exp(-label(proxy.rows)[:, 0]))
    np.testing.assert_allclose(answers, expected, atol=0.05)


def test_every_stage_keeps_it_and_an_int8_file_ships(made, proxy):
    assert [stage.stage for stage in made.stages] == [
        "float", "pruned", "quantized", "pruned+quantized",
    ]  # fmt: skip
    assert all(stage.agreement == 1 for stage in made.stages)
    (shipped,) = [stage for stage in made.stages if stage.shipped]
    assert shipped.precision == "int8"
    answers = predict_file(made.shipped, proxy.rows)[:, 1]
    assert roc_auc_score(label(proxy.rows)[:, 0] > 0, answers) == 1


def test_the_file_answers_as_the_student_does_for_missing_and_unknown_codes(student, made, proxy):
    for rows in (proxy.rows, odd_rows(proxy)):
        expected = predict_probabilities(student, rows)
        np.testing.assert_allclose(predict_file(made.fp32, rows), expected, atol=1e-5)


def test_the_student_is_rebuilt_from_the_folder(made, proxy):
    loaded = load_student(made.shipped.parent)
    assert loaded.encoding.num_columns == len(SCHEMA)
    answers = predict_probabilities(loaded, proxy.rows)
    # The shipped file is the int8 form of these weights.
    np.testing.assert_allclose(answers, predict_file(made.shipped, proxy.rows), atol=0.05)


def test_manifest_and_file_say_how_columns_are_coded(made):
    manifest = json.loads((made.shipped.parent / "manifest.json").read_text())
    assert manifest["columns"] == [
        {"name": "age", "kind": "number"},
        {"name": "city", "kind": "category", "categories": list(CITIES)},
        {"name": "born", "kind": "date"},
        {"name": "sex", "kind": "category", "categories": ["f", "m"]},
        {"name": "ill", "kind": "boolean"},
        {"name": "notes", "kind": "empty"},
    ]
    assert set(manifest["coding"]) == {"number", "boolean", "date", "category", "empty"}
    assert manifest["coding"]["date"].startswith("days since 1970-01-01")
    for file in (made.shipped, made.fp32):
        properties = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        assert json.loads(properties["columns"]) == manifest["columns"]
        assert json.loads(properties["coding"]) == manifest["coding"]


def test_the_input_is_one_float_tensor_of_raw_columns(made):
    (given,) = onnx.load(made.shipped).graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert given.type.tensor_type.shape.dim[1].dim_value == len(SCHEMA)


def test_a_table_without_categories_has_no_comparison_in_its_graph(case, made, tmp_path):
    path = tmp_path / "numbers.onnx"
    export_student(case.student, path, schema=numbers("abcdef"), classes=case.classes)
    with_categories, without = (
        [node.op_type for node in onnx.load(file).graph.node] for file in (made.fp32, path)
    )
    assert "Equal" in with_categories
    assert "Equal" not in without
    assert len(with_categories) - len(without) <= 4
