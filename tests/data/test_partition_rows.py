import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedistill.data import LabelledRows, partition_rows
from fedistill.errors import DataError

BANKS = ("bank_a", "bank_b", "bank_c")


def traced(values: np.ndarray) -> LabelledRows:
    """A column to sort by, and each row's own number."""
    numbers = np.arange(len(values), dtype=np.float32)
    return LabelledRows(
        columns=("value", "number"),
        rows=np.column_stack([values.astype(np.float32), numbers]),
        labels=np.arange(len(values)) % 3,
        num_classes=3,
    )


@given(
    values=arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32)),
    num_sites=st.integers(1, 60),
    spec=st.sampled_from(["iid", "quantile:value"]),
)
def test_every_row_goes_to_exactly_one_site(values: np.ndarray, num_sites: int, spec: str) -> None:
    private = traced(values)
    sites = tuple(f"site_{i}" for i in range(min(num_sites, len(values))))
    parts = partition_rows(private, spec, sites)
    numbers = np.concatenate([part.rows[:, 1] for part in parts.values()])
    sizes = [len(part.rows) for part in parts.values()]
    assert tuple(parts) == sites
    assert sorted(numbers) == list(range(len(values)))
    assert max(sizes) - min(sizes) <= 1
    for part in parts.values():
        assert np.array_equal(part.labels, part.rows[:, 1] % 3)


@given(values=arrays(np.float32, st.integers(3, 60), elements=st.floats(width=32)))
def test_quantiles_rise_from_site_to_site_with_missing_values_last(values: np.ndarray) -> None:
    parts = list(partition_rows(traced(values), "quantile:value", BANKS).values())
    dealt = np.concatenate([part.rows[:, 0] for part in parts])
    missing = np.isnan(dealt)
    assert not missing[: len(values) - missing.sum()].any()
    known = dealt[~missing]
    assert (known[:-1] <= known[1:]).all()


def test_quantile_keeps_ties_in_order() -> None:
    parts = partition_rows(traced(np.ones(6)), "quantile:value", BANKS)
    assert [part.rows[:, 1].tolist() for part in parts.values()] == [[0, 1], [2, 3], [4, 5]]


def test_credit_limits_separate_the_banks(private: LabelledRows) -> None:
    parts = partition_rows(private, "quantile:LIMIT_BAL", BANKS)
    limits = [part.rows[:, part.columns.index("LIMIT_BAL")] for part in parts.values()]
    assert [len(part) for part in limits] == [101, 100, 100]
    assert limits[0].max() <= limits[1].min() <= limits[1].max() <= limits[2].min()


def test_iid_is_the_published_permutation(private: LabelledRows) -> None:
    parts = partition_rows(private, "iid", BANKS)
    order = np.random.default_rng(0).permutation(len(private.rows))
    for part, index in zip(parts.values(), np.array_split(order, 3), strict=True):
        assert np.array_equal(part.rows, private.rows[index])
        assert np.array_equal(part.labels, private.labels[index])


@pytest.mark.parametrize("spec", ["iid", "quantile:LIMIT_BAL", "dirichlet:0.3"])
def test_partitions_do_not_depend_on_numpys_global_state(private: LabelledRows, spec: str) -> None:
    first = partition_rows(private, spec, BANKS)
    np.random.default_rng().permutation(5)
    second = partition_rows(private, spec, BANKS)
    assert all(np.array_equal(first[site].rows, second[site].rows) for site in BANKS)


@given(st.lists(st.sampled_from(["Hungary", "Cleveland", "VA Long Beach"]), min_size=1))
def test_a_site_column_groups_rows_by_its_values(site_of_row: list[str]) -> None:
    private = traced(np.zeros(len(site_of_row)))
    parts = partition_rows(private, "iid", BANKS, site_of_row=tuple(site_of_row))
    assert list(parts) == sorted(set(site_of_row))
    for site, part in parts.items():
        expected = [i for i, name in enumerate(site_of_row) if name == site]
        assert part.rows[:, 1].tolist() == expected


def test_site_names_must_fit_the_rows(private: LabelledRows) -> None:
    with pytest.raises(DataError, match="site names of 2 rows must fit the 301 private rows"):
        partition_rows(private, "iid", BANKS, site_of_row=("a", "b"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sorted", "must be 'iid', 'quantile:COLUMN' or 'dirichlet:ALPHA': choose one of these"),
        ("dirchlet:1", r"did you mean 'dirichlet:ALPHA'\?"),
        ("dirichlet", "must be dirichlet:ALPHA with a number ALPHA above 0 and at most 1000"),
        ("dirichlet:0", "above 0 and at most 1000: write for instance 'dirichlet:0.3'"),
        ("dirichlet:-1", "above 0 and at most 1000"),
        ("dirichlet:1001", "above 0 and at most 1000"),
        ("dirichlet:nan", "above 0 and at most 1000"),
        ("dirichlet:few", "above 0 and at most 1000"),
        ("qantile:LIMIT_BAL", r"did you mean 'quantile:COLUMN'\?"),
        ("IID", r"did you mean 'iid'\?"),
        ("", "partition='' must be 'iid', 'quantile:COLUMN' or"),
        ("iid:3", "write 'iid' alone"),
        ("iid:", "write 'iid' alone"),
        ("quantile", "names none, and it must be quantile:COLUMN"),
        ("quantile:", "names none, and it must be quantile:COLUMN"),
        ("quantile:LIMIT_BALL", r"did you mean 'LIMIT_BAL'\?"),
        ("quantile:zzz", "which is not a feature.*choose one of 'LIMIT_BAL'"),
    ],
)
def test_bad_specifications(private: LabelledRows, spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        partition_rows(private, spec, BANKS)
    assert f"partition={spec!r}" in str(caught.value)


def test_bad_numbers_of_sites(private: LabelledRows) -> None:
    with pytest.raises(DataError, match="num-sites=0 must be at least 1"):
        partition_rows(private, "iid", ())
    sites = tuple(f"site_{i}" for i in range(302))
    with pytest.raises(DataError, match=r"num-sites=302 must be at most .* private rows, 301"):
        partition_rows(private, "iid", sites)
    with pytest.raises(DataError, match="site-names 'a' must differ"):
        partition_rows(private, "iid", ("a", "b", "a"))


def with_labels(labels: list[int], num_classes: int) -> LabelledRows:
    return LabelledRows(
        columns=("number",),
        rows=np.arange(len(labels), dtype=np.float32)[:, None],
        labels=np.array(labels, dtype=np.int64),
        num_classes=num_classes,
        misfit=np.array(["" if label >= 0 else "label is missing" for label in labels]),
    )


@given(
    labels=st.lists(st.integers(-1, 2), min_size=3, max_size=200),
    alpha=st.floats(1e-300, 1000),
)
def test_dirichlet_deals_every_row_to_exactly_one_site(labels: list[int], alpha: float) -> None:
    private = with_labels(labels, 3)
    parts = partition_rows(private, f"dirichlet:{alpha!r}", BANKS)
    assert tuple(parts) == BANKS
    numbers = np.concatenate([part.rows[:, 0] for part in parts.values()]).astype(int)
    assert sorted(numbers) == list(range(len(labels)))
    for part in parts.values():
        assert np.array_equal(part.labels, private.labels[part.rows[:, 0].astype(int)])
        assert part.misfit is not None
        assert np.array_equal(part.misfit != "", part.labels == -1)


def shares(alpha: float) -> np.ndarray:
    """The share of each class, by row, that each of three sites gets of 30,000 rows."""
    private = with_labels(np.repeat(np.arange(10), 3000).tolist(), 10)
    parts = partition_rows(private, f"dirichlet:{alpha}", BANKS).values()
    return np.stack([np.bincount(part.labels, minlength=10) for part in parts], axis=1) / 3000


def test_shares_of_a_class_are_a_dirichlet_draw() -> None:
    """Each share has mean 1/3 and variance 2/9 / (3 alpha + 1), by the law of Dirichlet(alpha)."""
    assert shares(1000).std() < 0.02
    assert shares(0.01).max(axis=1).min() > 0.9
    spread = [np.mean((shares(alpha) - 1 / 3) ** 2) for alpha in (0.3, 3.0, 30.0)]
    for alpha, variance in zip((0.3, 3.0, 30.0), spread, strict=True):
        assert variance == pytest.approx(2 / 9 / (3 * alpha + 1), rel=0.6)


def test_dirichlet_deals_misfits_at_random() -> None:
    """Of 3,000 fair draws a third differs from 1,000 by 130, five sigma, once in a million."""
    parts = partition_rows(with_labels([-1] * 3000 + [0], 1), "dirichlet:0.001", BANKS)
    assert all(abs((part.labels == -1).sum() - 1000) < 130 for part in parts.values())
