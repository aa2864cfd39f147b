"""Receipts: what left, what it cost, what remains."""

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fedistill.errors import DataError, LedgerError
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.receipts import Receipt, append_receipt, read_receipts


def receipt(**changes: Any) -> Receipt:
    fields: dict[str, Any] = {
        "run": "42",
        "site": "bank_a",
        "population": "bank_a customers",
        "what": "dp-probe labels",
        "question": "ab" * 32,
        "bytes": 12_000,
        "sha256": hashlib.sha256(b"release").hexdigest(),
        "epsilon": 0.5,
        "total_epsilon": 0.75,
        "remaining_epsilon": 0.25,
        "delta": 1e-5,
        "adjacency": Adjacency.ADD_REMOVE,
        "unit": Unit.RECORD,
    }
    return Receipt(**{**fields, **changes})


def test_receipts_are_read_back_in_the_order_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    written = receipt(), receipt(epsilon=0.0, cached=True)
    for one in written:
        append_receipt(path, one)
    assert read_receipts(path) == written


def test_a_receipt_is_one_line_of_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    append_receipt(path, receipt(what="line\nbreak"))
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["adjacency"] == "add-remove"
    assert json.loads(line)["time"].endswith("+00:00")


def test_receipts_are_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    append_receipt(path, receipt())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_receipt_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        receipt().epsilon = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [{"epsilon": -1.0}, {"delta": 0.1}, {"sha256": "short"}, {"rows": 7_000}, {"bytes": -1}],
)
def test_a_receipt_holds_what_it_should_and_nothing_else(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        receipt(**change)


def test_a_receipt_that_cannot_be_written_stops_the_release(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="nothing was released"):
        append_receipt(tmp_path / "missing" / "receipts.jsonl", receipt())


def test_a_full_disk_is_not_taken_for_a_receipt() -> None:
    with pytest.raises(LedgerError, match="nothing was released"):
        append_receipt(Path("/dev/full"), receipt())


def test_a_line_that_is_no_receipt_is_named(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    append_receipt(path, receipt())
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"run": "42"}\n')
    with pytest.raises(DataError, match="line 2 is not a receipt"):
        read_receipts(path)


def test_receipts_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_receipts(tmp_path / "receipts.jsonl")
