"""Public encoders: identity, one row at a time, total at run time, strict on public rows."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.external_data_helper import convert_model_to_external_data

from fedistill.data import ProxySet
from fedistill.data.encoder import Encoder
from fedistill.data.schema import ColumnSchema, Kind
from fedistill.errors import DataError, PolicyRefusal
from fedistill.features import FEATURE_STEP, proxy_basis
from fedistill.features.embedding_map import fit_embedding_map
from fedistill.features.encoders import row_encoder
from fedistill.privacy.grid import squared_norms
from tests.encoders import (
    export_cnn,
    proxy_with,
    write_linear,
    write_tokens_encoder,
    write_varying,
)


def images(num_rows: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 16, (num_rows, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory):
    return export_cnn(tmp_path_factory.mktemp("encoder") / "cnn.onnx")


@pytest.fixture(scope="module", params=["onnx", "import"])
def fitted(request, cnn):
    encoder = cnn if request.param == "onnx" else "tests.encoders:pooled"
    return fit_embedding_map(proxy_with(encoder, images()))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_records_integers_depend_on_that_record_alone(fitted, seed: int) -> None:
    """PRIVACY rule 8: subsets, single rows and shuffles leave integers bit for bit as they were."""
    random = np.random.default_rng(seed)
    rows = images(60, seed=1)
    whole = fitted.transform(rows)
    order = random.permutation(60)[: random.integers(1, 61)]
    np.testing.assert_array_equal(fitted.transform(rows[order]), whole[order])
    one = random.integers(60)
    np.testing.assert_array_equal(fitted.transform(rows[[one]]), whole[[one]])


def test_the_embedding_is_that_of_the_row_alone_not_of_a_batch(cnn) -> None:
    """Oracle: another session, asked row by row."""
    import onnxruntime

    session = onnxruntime.InferenceSession(cnn, providers=["CPUExecutionProvider"])
    (name,) = [one.name for one in session.get_inputs()]
    rows = images(10, seed=2)
    expected = [session.run(None, {name: row.reshape(1, 1, 8, 8)})[0][0] for row in rows]
    found = row_encoder(proxy_with(cnn, images())).embed(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_integers_are_close_to_the_float_formula(fitted) -> None:
    """Oracle: standardise, unit norm, principal directions, unit norm, in plain float64."""
    proxy, rows = fitted.encoder.embed(images()), fitted.encoder.embed(images(40, seed=3))
    varies = np.isfinite(fitted.std)
    mean, std = proxy[:, varies].mean(axis=0), proxy[:, varies].std(axis=0)
    unit = (rows[:, varies] - mean) / std
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    along = unit @ (fitted.directions[varies] * 2.0**-fitted.projection_bits) - fitted.offset
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    expected = np.hstack([np.full((40, 1), 0.2), along * np.sqrt(0.96)])
    found = fitted.transform(images(40, seed=3)) * FEATURE_STEP
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_directions_are_orthonormal_and_norms_at_most_one(fitted) -> None:
    directions = fitted.directions * 2.0**-fitted.projection_bits
    np.testing.assert_allclose(directions.T @ directions, np.eye(directions.shape[1]), atol=1e-4)
    wild = images(9) * np.float32(1e36)
    for rows in (images(200, seed=4), wild):
        assert squared_norms(fitted.transform(rows)).max() <= FEATURE_STEP**-2


def test_no_more_directions_than_300_and_than_proxy_rows(tmp_path) -> None:
    wide = np.random.default_rng(0).normal(size=(1500, 400)).astype(np.float32)
    assert fit_embedding_map(proxy_with("tests.encoders:as_they_are", wide)).num_features == 301
    few = proxy_with("tests.encoders:as_they_are", wide[:12])
    assert fit_embedding_map(few).num_features <= 12


def test_a_row_that_the_encoder_cannot_read_has_no_features() -> None:
    """It fails, answers another shape, or gives no number: at run time nobody must notice."""
    fitted = fit_embedding_map(proxy_with("tests.encoders:pooled", images()))
    rows = images(5)
    rows[0], rows[1], rows[2] = -1.0, 2000.0, np.nan
    features = fitted.transform(rows)
    assert not features[:3].any()
    assert (features[3:, 0] > 0).all()
    np.testing.assert_array_equal(features[3:], fitted.transform(rows[3:]))
    assert fitted.transform(rows[:0]).shape == (0, fitted.num_features)


def test_features_of_the_latest_tables_are_remembered_and_cannot_be_written_to() -> None:
    fitted = fit_embedding_map(proxy_with("tests.encoders:pooled", images()))
    first = fitted.transform(images())
    assert fitted.transform(images().copy()) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    for number in range(1, 5):
        fitted.transform(images()[number:])
    again = fitted.transform(images())
    assert again is not first
    np.testing.assert_array_equal(again, first)


def test_an_onnx_file_is_known_by_its_bytes_wherever_it_lies(tmp_path, cnn) -> None:
    copy = shutil.copy(cnn, tmp_path / "copy.onnx")
    other = write_linear(tmp_path / "other.onnx", 64)
    first, same, different, none = (
        proxy_with(encoder, images()).sha256 for encoder in (cnn, copy, other, "")
    )
    assert first == same
    assert len({first, different, none, proxy_with("tests.encoders:pooled", images()).sha256}) == 4


@pytest.mark.parametrize("encoder", ["cnn", "tests.encoders:pooled"])
def test_a_saved_proxy_set_keeps_its_encoder(tmp_path, cnn, encoder: str) -> None:
    proxy = proxy_with(cnn if encoder == "cnn" else encoder, images())
    proxy.save(tmp_path / "proxy")
    loaded = ProxySet.load(tmp_path / "proxy")
    assert loaded == proxy
    assert loaded.encoder is not None
    assert loaded.encoder.identity == proxy.encoder.identity


def test_a_loaded_proxy_set_needs_the_place_of_its_onnx_file(tmp_path, cnn) -> None:
    proxy_with(cnn, images()).save(tmp_path / "proxy")
    loaded = ProxySet.load(tmp_path / "proxy")
    with pytest.raises(PolicyRefusal, match="no file on this machine"):
        row_encoder(loaded)
    assert proxy_basis(replace(loaded, encoder=Encoder.named(str(cnn)))).map.num_features > 1


def test_proxy_rows_are_encoded_once_a_process(cnn) -> None:
    encoder = row_encoder(proxy_with(cnn, images()))
    assert encoder.embed(images()) is encoder.embed(images().copy())
    assert not encoder.embed(images()).flags.writeable


def test_token_ids_reach_an_encoder_of_text_as_integers(tmp_path) -> None:
    path = write_tokens_encoder(tmp_path / "text.onnx")
    tokens = np.random.default_rng(0).integers(0, 50, (80, 12)).astype(np.float32)
    fitted = fit_embedding_map(proxy_with(path, tokens))
    odd = tokens[:4].copy()
    odd[0, 0], odd[1, 0], odd[2, 0] = 0.5, np.nan, 50  # no integer, missing, no token
    np.testing.assert_array_equal(fitted.transform(odd).any(axis=1), [False, False, False, True])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("of_changing_size", r"numbers for it and \d+ for proxy row 0"),
        ("not_a_number", "numbers that are not finite on proxy row 0"),
        ("without_batch", r"an array of shape \(64,\)"),
        ("counting", "another answer the second time"),
        ("always_the_same", "must tell proxy rows apart"),
        ("failing", "no weights here"),
        ("nothing", "must be callable"),
        ("no_such_factory", "cannot be imported"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_unfit_import_path_is_refused(name: str, words: str) -> None:
    with pytest.raises(PolicyRefusal, match=words) as refusal:
        fit_embedding_map(proxy_with(f"tests.encoders:{name}", images()))
    assert f"encoder='tests.encoders:{name}'" in str(refusal.value)


def test_an_import_path_of_no_package_is_refused() -> None:
    with pytest.raises(PolicyRefusal, match="cannot be imported"):
        row_encoder(proxy_with("no_such_package:encoder", images()))


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"encoder='.*none.onnx' cannot be read \(No such file"):
        Encoder.named(str(tmp_path / "none.onnx"))


def test_a_file_that_is_no_model_is_refused(tmp_path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(PolicyRefusal, match="must be an ONNX model"):
        row_encoder(proxy_with(path, images()))


def test_a_file_that_changed_is_refused(tmp_path) -> None:
    path = write_linear(tmp_path / "encoder.onnx", 64)
    proxy = proxy_with(path, images())
    write_linear(path, 64, dimensions=7)
    with pytest.raises(PolicyRefusal, match="must have the sha256"):
        row_encoder(proxy)
    path.unlink()
    with pytest.raises(PolicyRefusal, match="cannot be read"):
        row_encoder(proxy)


def test_another_width_is_refused(tmp_path, cnn) -> None:
    for path in (write_linear(tmp_path / "wide.onnx", 65), cnn):
        rows = images()[:, :63]
        with pytest.raises(PolicyRefusal, match="must multiply to the 63 columns of a row"):
            row_encoder(proxy_with(path, rows))


def test_an_onnx_output_whose_shape_changes_is_refused(tmp_path) -> None:
    rows = np.ones((20, 6), np.float32)
    rows[7, 2] = 0
    with pytest.raises(PolicyRefusal, match="5 numbers for it and 6 for proxy row 0 on proxy ro"):
        row_encoder(proxy_with(write_varying(tmp_path / "varying.onnx"), rows))


def test_weights_in_other_files_are_refused(tmp_path) -> None:
    path = write_linear(tmp_path / "whole.onnx", 64)
    model = onnx.load(path)
    convert_model_to_external_data(model, location="weights", size_threshold=0)
    onnx.save(model, tmp_path / "parts.onnx")
    with pytest.raises(PolicyRefusal, match="keeps weights in other files"):
        row_encoder(proxy_with(tmp_path / "parts.onnx", images()))


def test_a_column_of_texts_is_refused() -> None:
    city = ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Bonn", "Ulm"))
    encoder = Encoder.named("tests.encoders:as_they_are")
    proxy = ProxySet(schema=(city,), rows=np.zeros((12, 1)), encoder=encoder)
    with pytest.raises(PolicyRefusal, match="column 'city', which holds texts"):
        row_encoder(proxy)


def test_an_identity_of_another_kind_is_none() -> None:
    with pytest.raises(ValueError, match="must start with"):
        Encoder.identified("pickle:abc")
