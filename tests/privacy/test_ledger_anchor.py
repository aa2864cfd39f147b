"""The anchor's file: lines that a crash leaves whole or not at all, and that never go back."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent
from hypothesis import given
from hypothesis import strategies as st

from fedistill.errors import LedgerError
from fedistill.privacy.chain import Anchor
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import (
    LINE,
    MOST_LINES,
    add_to_anchor,
    anchor_path,
    read_anchor,
    settle_anchor,
    write_anchor,
)
from fedistill.privacy.ledger_key import SiteKey, create_key, load_key
from fedistill.privacy.ledger_verify import verify

Open = Callable[..., Ledger]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    path = tmp_path_factory.mktemp("key") / "site.key"
    create_key(path)
    return load_key(path)


def anchor(key: SiteKey, count: int) -> Anchor:
    return Anchor.sign(key, count=count, head=f"{count:064x}")


def counted(ledger: Path) -> int:
    found = read_anchor(ledger)
    assert found is not None
    assert found.is_signed
    return found.count


@pytest.fixture
def of_three(path: Path, key: SiteKey) -> Path:
    write_anchor(path, anchor(key, 0))
    for count in (1, 2, 3):
        add_to_anchor(path, anchor(key, count))
    assert anchor_path(path).stat().st_size == 4 * LINE
    return path


def test_the_last_line_counts(of_three: Path) -> None:
    assert counted(of_three) == 3


@pytest.mark.parametrize("torn", [b"{", b"x" * 511, b"\0", bytes(511)])
def test_a_torn_line_does_not_count_and_the_next_is_whole(
    of_three: Path, key: SiteKey, torn: bytes
) -> None:
    with anchor_path(of_three).open("ab") as file:
        file.write(torn)
    assert counted(of_three) == 3
    add_to_anchor(of_three, anchor(key, 4))
    assert counted(of_three) == 4
    assert anchor_path(of_three).stat().st_size == LINE


def test_lines_of_zeros_do_not_count_and_the_next_does(of_three: Path, key: SiteKey) -> None:
    """A file system may have made the file longer before it wrote what was added."""
    with anchor_path(of_three).open("ab") as file:
        file.write(bytes(2 * LINE))
    assert counted(of_three) == 3
    add_to_anchor(of_three, anchor(key, 4))
    assert counted(of_three) == 4


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 6))
def test_any_sectors_that_a_power_cut_lost_leave_the_last_one_that_it_spared(
    key: SiteKey, lost: list[bool], kept: int
) -> None:
    """Sectors that were not synced reach the disk in any order; the first line was synced."""
    with tempfile.TemporaryDirectory() as name:
        ledger = Path(name) / "site.ledger.db"
        write_anchor(ledger, anchor(key, 0))
        for count in range(1, 7):
            add_to_anchor(ledger, anchor(key, count))
        whole = bytearray(anchor_path(ledger).read_bytes())
        for count, gone in enumerate(lost, start=1):
            if gone:
                whole[count * LINE : (count + 1) * LINE] = bytes(LINE)
        anchor_path(ledger).write_bytes(whole[: (kept + 1) * LINE])
        spared = [count for count in range(1, kept + 1) if not lost[count - 1]]
        assert counted(ledger) == max(spared, default=0)


def test_a_line_that_was_edited_is_refused_though_an_older_one_is_whole(of_three: Path) -> None:
    content = bytearray(anchor_path(of_three).read_bytes())
    content[3 * LINE] = ord("x")
    anchor_path(of_three).write_bytes(content)
    with pytest.raises(LedgerError, match=r"anchor .* cannot be read"):
        read_anchor(of_three)


@pytest.mark.parametrize("put", [write_anchor, add_to_anchor])
def test_no_line_goes_back(
    of_three: Path, key: SiteKey, put: Callable[[Path, Anchor], None]
) -> None:
    before = anchor_path(of_three).read_bytes()
    for count in (0, 2, 3):
        put(of_three, anchor(key, count))
    assert anchor_path(of_three).read_bytes() == before


def test_settling_leaves_the_last_line_alone(of_three: Path) -> None:
    settle_anchor(of_three)
    assert anchor_path(of_three).stat().st_size == LINE
    assert counted(of_three) == 3


def test_a_file_of_many_lines_is_written_anew(path: Path, key: SiteKey) -> None:
    write_anchor(path, anchor(key, 0))
    sizes = set()
    for count in range(1, MOST_LINES + 2):
        add_to_anchor(path, anchor(key, count))
        assert counted(path) == count
        sizes.add(anchor_path(path).stat().st_size)
    assert max(sizes) == MOST_LINES * LINE
    assert anchor_path(path).stat().st_size == 2 * LINE


def test_an_anchor_that_a_power_cut_left_behind_is_brought_up_to_date(
    ledger_of_three: Path, open_ledger: Open
) -> None:
    with open_ledger() as ledger:
        old = anchor_path(ledger_of_three).read_bytes()
        made = ledger.charge("q4", {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
    anchor_path(ledger_of_three).write_bytes(old)
    assert verify(ledger_of_three).valid
    open_ledger().close()
    found = read_anchor(ledger_of_three)
    assert found is not None
    assert (found.count, found.head) == (4, made.hash)


def test_every_line_may_be_the_kept_copy(
    ledger_of_three: Path, open_ledger: Open, tmp_path: Path
) -> None:
    """A copy that was taken of an open ledger's anchor vouches as one taken at rest does."""
    kept = tmp_path / "kept"
    with open_ledger() as ledger:
        for number in range(3):
            ledger.charge(str(number), {}, ZCDpEvent(0.001), budget_epsilon=1.0, delta=1e-5)
        kept.write_bytes(anchor_path(ledger_of_three).read_bytes())
    assert kept.stat().st_size == 4 * LINE
    assert verify(ledger_of_three, anchor_file=kept).complete
    os.truncate(kept, LINE)
    assert verify(ledger_of_three, anchor_file=kept).complete
