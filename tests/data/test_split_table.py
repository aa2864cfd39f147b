import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.data import Column, Table, split_table
from fedistill.data.table import Rows
from fedistill.errors import DataError


def numbered(num_rows: int, num_classes: int = 2, *, sites: bool = False) -> Table:
    """Each row holds its own number, so that every part can be traced."""
    return Table(
        columns={"number": Column.of(np.arange(num_rows))},
        labels=np.arange(num_rows) % num_classes,
        classes=tuple(f"class {k}" for k in range(num_classes)),
        site=tuple(f"site {i % 3}" for i in range(num_rows)) if sites else None,
        name="numbered",
    )


def test_the_split_is_the_published_one(credit: Table, credit_rows: Rows) -> None:
    split = split_table(credit, proxy_fraction=0.2, test_fraction=0.15)
    order = np.random.default_rng(0).permutation(30_000)
    assert np.array_equal(split.proxy.rows, credit_rows[order[:6_000]])
    assert np.array_equal(split.test.rows, credit_rows[order[6_000:10_500]])
    assert np.array_equal(split.test.labels, credit.labels[order[6_000:10_500]])
    assert np.array_equal(split.private.rows, credit_rows[order[10_500:]])
    assert np.array_equal(split.private.labels, credit.labels[order[10_500:]])
    assert split.private_site is None
    assert split.proxy.columns == split.test.columns == split.private.columns
    assert split.private.columns == tuple(credit.columns)
    assert not any(split.private.misfit)


@given(
    num_rows=st.integers(200, 2000),
    proxy_fraction=st.floats(0.05, 0.4),
    test_fraction=st.floats(0.05, 0.4),
)
def test_parts_are_disjoint_and_complete(
    num_rows: int, proxy_fraction: float, test_fraction: float
) -> None:
    table = numbered(num_rows, sites=True)
    split = split_table(table, proxy_fraction=proxy_fraction, test_fraction=test_fraction)
    proxy, test, private = (
        set(part.rows[:, 0].astype(int)) for part in (split.proxy, split.test, split.private)
    )
    assert len(split.proxy.rows) == int(proxy_fraction * num_rows)
    assert len(split.test.rows) == int(test_fraction * num_rows)
    assert not proxy & test
    assert not proxy & private
    assert not test & private
    assert proxy | test | private == set(range(num_rows))


@given(num_rows=st.integers(100, 500))
def test_labels_and_sites_stay_with_their_rows(num_rows: int) -> None:
    split = split_table(numbered(num_rows, sites=True), proxy_fraction=0.2, test_fraction=0.2)
    for part in (split.test, split.private):
        assert np.array_equal(part.labels, part.rows[:, 0] % 2)
    assert split.private_site == tuple(f"site {int(i) % 3}" for i in split.private.rows[:, 0])


@pytest.mark.parametrize(
    ("proxy_fraction", "test_fraction", "message"),
    [
        (0.05, 0.2, r"proxy-fraction=0.05 of 100 rows gives 5 proxy rows, .* at least 10: raise"),
        (0.2, 0.09, r"test-fraction=0.09 of 100 rows gives 9 test rows, .* at least 10: raise"),
        (0.5, 0.45, r"proxy-fraction=0.5 and test-fraction=0.45 of 100 .* 5 private .*: lower"),
        (0.8, 0.7, r"gives 0 private rows"),
    ],
)
def test_too_small_parts(proxy_fraction: float, test_fraction: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_table(numbered(100), proxy_fraction=proxy_fraction, test_fraction=test_fraction)


def test_every_class_must_be_in_the_test_rows() -> None:
    table = numbered(100, num_classes=60)
    with pytest.raises(DataError, match=r"test-fraction=0\.1 gives 10 test rows without class 'cl"):
        split_table(table, proxy_fraction=0.2, test_fraction=0.1)


def test_every_class_must_be_in_the_private_rows() -> None:
    table = numbered(100)
    first_test_row = np.random.default_rng(0).permutation(100)[20]
    table.labels[:] = 0
    table.labels[first_test_row] = 1
    with pytest.raises(DataError, match="gives 60 private rows without class 'class 1'"):
        split_table(table, proxy_fraction=0.2, test_fraction=0.2)
