from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedistill.data import LabelledRows
from fedistill.mechanisms.shards import deal, deal_by_key
from tests.mechanisms.toy import make_rows, without_rows

KEY = b"k" * 32
FALSE_ALARM = 1e-6


def rows_with_copies(seed: int, num_rows: int = 60) -> LabelledRows:
    """Some rows are there many times; some values are missing or infinite."""
    random = np.random.default_rng(seed)
    rows = make_rows(num_rows, seed=seed)
    values = rows.rows.copy()
    values[random.random(values.shape) < 0.1] = np.nan
    values[0, 0] = np.inf
    return replace(rows, rows=values).take(random.integers(num_rows // 3, size=num_rows))


def contents(rows: LabelledRows, shards: list[np.ndarray]) -> list[list[bytes]]:
    """What a teacher would see, in order."""
    return [[rows.rows[i].tobytes() + rows.labels[i].tobytes() for i in s] for s in shards]


def without(rows: LabelledRows, left_out: int) -> LabelledRows:
    return rows.take(np.flatnonzero(np.arange(len(rows.labels)) != left_out))


def test_every_row_lies_in_one_shard() -> None:
    shards = deal(make_rows(500), 7)
    assert len(shards) == 7
    assert sorted(np.concatenate(shards)) == list(range(500))


@pytest.mark.parametrize("units", [None, np.zeros(0, np.int64)])
def test_without_rows_all_shards_are_empty(units) -> None:
    assert [len(shard) for shard in deal(replace(without_rows(), units=units), 3)] == [0, 0, 0]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), key=st.binary(min_size=16, max_size=64))
def test_removing_a_row_takes_one_row_from_one_shard(seed: int, key: bytes) -> None:
    """For any key, and where equal rows are there too; the order within shards stays."""
    rows = rows_with_copies(seed)
    whole = contents(rows, deal_by_key(rows, 9, key))
    for left_out in (0, 31, 59):
        fewer = without(rows, left_out)
        rest = contents(fewer, deal_by_key(fewer, 9, key))
        (moved,) = [j for j in range(9) if whole[j] != rest[j]]
        gone = rows.rows[left_out].tobytes() + rows.labels[left_out].tobytes()
        whole[moved].remove(gone)
        assert whole[moved] == rest[moved]
        whole = contents(rows, deal_by_key(rows, 9, key))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_in_which_a_site_keeps_its_rows_does_not_matter(seed: int) -> None:
    rows = rows_with_copies(seed)
    mixed = rows.take(np.random.default_rng(seed).permutation(60))
    assert contents(rows, deal_by_key(rows, 9, KEY)) == contents(mixed, deal_by_key(mixed, 9, KEY))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_whole_unit_lies_in_one_shard_whatever_its_rows_are(seed: int) -> None:
    """So replacing all rows of a unit, or removing them, changes one shard."""
    random = np.random.default_rng(seed)
    rows = replace(rows_with_copies(seed), units=random.integers(15, size=60))
    shards = deal_by_key(rows, 9, KEY)
    homes = [np.unique(rows.units[shard]) for shard in shards]
    assert len(np.concatenate(homes)) == len(np.unique(rows.units))
    about = rows.units == rows.units[0]
    changed = rows.rows.copy()
    changed[about] = 7
    other = replace(rows, rows=changed)
    before, after = contents(rows, shards), contents(other, deal_by_key(other, 9, KEY))
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 1
    fewer = rows.take(np.flatnonzero(~about))
    rest = contents(fewer, deal_by_key(fewer, 9, KEY))
    assert sum(a != b for a, b in zip(before, rest, strict=True)) == 1


def test_every_deal_is_another() -> None:
    """PRIVACY rule 14: the key is fresh. Two deals of 500 rows agree with probability 7^-500."""
    rows = make_rows(500)
    np.random.seed(0)
    first = deal(rows, 7)
    np.random.seed(0)
    second = deal(rows, 7)
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.statistical
@pytest.mark.parametrize("copies", [False, True])
def test_all_shards_are_equally_likely(copies: bool) -> None:
    """False alarm 1e-6. Were equal rows kept together, the second case would fail."""
    rows = make_rows(20_000)
    if copies:
        rows = rows.take(np.arange(20_000) % 10)
    sizes = [len(shard) for shard in deal(rows, 20)]
    assert stats.chisquare(sizes).pvalue > FALSE_ALARM
