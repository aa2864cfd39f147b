"""What teachers learn from: a table's columns, or the embeddings of an encoder, row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.data import ColumnSchema, Kind, ProxySet
from fedistill.errors import PolicyRefusal
from fedistill.features import Expansion, TeacherColumns
from fedistill.features.public_ranks import PublicRanks
from tests.encoders import export_cnn, proxy_with


def images(num_rows: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 16, (num_rows, 64)).astype(np.float32)


@pytest.fixture(scope="module", params=["onnx", "import"])
def proxy(request, tmp_path_factory) -> ProxySet:
    if request.param == "import":
        return proxy_with("tests.encoders:pooled", images())
    return proxy_with(export_cnn(tmp_path_factory.mktemp("encoder") / "cnn.onnx"), images())


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("kind", [TeacherColumns, PublicRanks])
def test_a_records_columns_depend_on_that_record_alone(proxy, kind, seed: int) -> None:
    """PRIVACY rule 8: subsets and single rows keep every bit."""
    columns, rows = kind.of(proxy), images(40, seed=1)
    whole = columns.transform(rows)
    order = np.random.default_rng(seed).permutation(40)[: 1 + seed % 40]
    np.testing.assert_array_equal(columns.transform(rows[order]), whole[order])
    np.testing.assert_array_equal(columns.transform(rows[[order[0]]]), whole[[order[0]]])


def test_an_encoder_gives_its_embeddings() -> None:
    proxy = proxy_with("tests.encoders:pooled", images())
    rows = images(7, seed=2)
    found = TeacherColumns.of(proxy).transform(rows)
    assert found.dtype == np.float32
    expected = rows.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(7, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_row_without_an_embedding_is_not_readable() -> None:
    rows = images(5)
    rows[0], rows[1], rows[2] = -1.0, 2000.0, np.nan  # it fails, answers otherwise, gives no number
    columns = TeacherColumns.of(proxy_with("tests.encoders:pooled", images()))
    np.testing.assert_array_equal(columns.readable(rows), [False, False, False, True, True])
    assert np.isnan(columns.transform(rows)[:3]).all()
    assert columns.readable(rows[:0]).shape == (0,)


def test_an_embedding_beyond_float32_stays_finite() -> None:
    columns = TeacherColumns.of(proxy_with("tests.encoders:beyond_float32", images()))
    found = columns.transform(images(6, seed=3))
    assert np.isfinite(found).all()
    assert columns.readable(images(6, seed=3)).all()
    assert found.max() == np.finfo(np.float32).max


def test_a_tables_columns_are_expanded_and_every_row_is_readable() -> None:
    city = ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Bonn", "Kiel", "Ulm"))
    rows = np.array([[0], [2], [np.nan], [7]], np.float32)
    columns = TeacherColumns.of(ProxySet(schema=(city,), rows=rows[:3]))
    np.testing.assert_array_equal(columns.transform(rows), Expansion.of((city,)).transform(rows))
    assert columns.readable(rows).all()


def test_an_unfit_encoder_is_refused() -> None:
    rows = images()
    rows[0, 0] = np.nan
    with pytest.raises(PolicyRefusal, match="numbers that are not finite"):
        TeacherColumns.of(proxy_with("tests.encoders:as_they_are", rows))
