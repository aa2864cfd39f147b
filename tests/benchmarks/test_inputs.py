import numpy as np
import pytest

from benchmarks.baselines.inputs import RawColumns, load_inputs, proxy_labels, run_config
from fedistill.data import ProxySet
from fedistill.data.schema import numbers
from fedistill.features import proxy_basis
from fedistill.federation.simulation import prepare_data


def proxy_of(rows):
    return ProxySet(schema=numbers("abc"[: len(rows[0])]), rows=np.array(rows, np.float32))


def test_raw_columns_are_filled_and_scaled_by_public_rows_alone():
    columns = RawColumns.fit(proxy_of([[0, 5], [2, 5], [4, 5], [np.nan, 5]]))
    private = columns.transform(np.array([[np.nan, 7], [2 + 2 * 2**0.5, 5]], np.float32))
    np.testing.assert_allclose(private, [[0, 2, 1], [2, 0, 0]], atol=1e-6)


def test_raw_columns_lie_at_most_five_from_zero():
    columns = RawColumns.fit(proxy_of([[0.0], [1.0]]))
    assert columns.transform(np.array([[1e9], [-1e9]], np.float32)).tolist() == [[5.0], [-5.0]]


def test_a_column_without_public_values_is_zero_and_a_flag():
    columns = RawColumns.fit(proxy_of([[np.nan, 0.0], [np.nan, 1.0]]))
    assert columns.transform(np.array([[np.nan, 0.5]], np.float32)).tolist() == [[0, 0, 1]]


def test_proxy_labels_are_those_of_the_same_rows(table):
    simulation = prepare_data(run_config(table))
    with np.load(table) as archive:
        rows, labels = archive["X"], archive["y"]
    label_of = {row.tobytes(): label for row, label in zip(rows, labels, strict=True)}
    expected = [label_of[row.tobytes()] for row in simulation.proxy.rows]
    assert proxy_labels(table, simulation).tolist() == expected


def test_proxy_labels_of_another_split_are_refused(table, tmp_path):
    with np.load(table) as archive:
        np.savez(tmp_path / "other.npz", X=archive["X"][::-1], y=archive["y"])
    with pytest.raises(RuntimeError, match="permutation changed"):
        proxy_labels(tmp_path / "other.npz", prepare_data(run_config(table)))


def test_the_features_variant_is_what_dp_probe_trains_on(table):
    simulation = prepare_data(run_config(table))
    basis = proxy_basis(simulation.proxy)
    inputs = load_inputs(table, "features")
    for site, rows in zip(inputs.sites, simulation.sites.values(), strict=True):
        np.testing.assert_allclose(site.inputs, basis.features(rows.rows), rtol=1e-6)
        np.testing.assert_array_equal(site.labels, rows.labels)
