"""Receipts under attack: forged, edited, cut, swapped and replayed ones are named."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent
from hypothesis import given
from hypothesis import strategies as st

from fedistill.errors import DataError, LedgerError
from fedistill.federation.countersigning import Countersigner
from fedistill.labels import LabelQuestion
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.countersign import (
    STATEMENT_BYTES,
    Countersigned,
    Statement,
    append_countersigned,
    countersigned_path,
    read_countersigned,
)
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_key import create_key, key_path, load_key
from fedistill.privacy.receipts import Receipt, append_receipt, read_receipts, sign_receipt
from fedistill.privacy.receipts_verify import ReceiptCheck, verify_receipts
from tests.privacy.test_receipts import receipt

QUESTION = LabelQuestion(
    mechanism="dp-probe", epsilon=0.5, delta=1e-5, num_classes=2, proxy_sha256="ab" * 32
)
SENT = b"release"
FIELDS = [
    *("time", "run", "site", "what", "question", "bytes", "sha256", "epsilon", "total_epsilon"),
    *("remaining_epsilon", "alone_epsilon", "delta", "adjacency", "unit", "cached", "sealed"),
    *("number", "previous", "charges", "head", "blind", "public_key", "signature"),
]
OTHER = {
    str: lambda text: text[:-1] + ("0" if text[-1:] != "0" else "1"),
    bool: lambda value: not value,
    int: lambda value: value + 1,
    float: lambda value: value / 2,
    type(None): lambda _: 1.0,
}
LEGAL = {"adjacency": "replace-one", "unit": "group", "previous": "cd" * 32}


@dataclass
class Site:
    """A ledger of three charges, its receipts, and a server that countersigned them."""

    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / "bank_a.ledger.db"

    @property
    def receipts(self) -> Path:
        return self.folder / "receipts.jsonl"

    @property
    def server(self) -> Countersigner:
        return Countersigner.open(self.folder / "server")

    def open(self) -> Ledger:
        return Ledger.open(
            self.ledger,
            population="bank_a customers",
            adjacency=Adjacency.ADD_REMOVE,
            unit=Unit.RECORD,
            create=True,
        )

    def answer(self, *, site: str = "bank_a") -> Statement:
        with self.open() as ledger:
            ledger.charge(
                QUESTION.sha256,
                {},
                ZCDpEvent(0.001),
                budget_epsilon=4.0,
                delta=1e-5,
            )
            charges, head = ledger.head
        return sign_receipt(
            self.receipts,
            receipt(question=QUESTION.sha256, bytes=len(SENT), site=site),
            load_key(key_path(self.ledger)),
            charges=charges,
            head=head,
        )

    def take(self, statement: bytes, *, sent: bytes = SENT, site: str = "bank_a") -> str | None:
        return self.server.take(site, QUESTION, b"", sent, statement)

    def check(self, **options: object) -> ReceiptCheck:
        return verify_receipts(self.ledger, self.receipts, **options)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    for _ in range(3):
        assert site.take(site.answer().to_bytes()) is None
    append_countersigned(countersigned_path(site.receipts), site.server.of("bank_a"))
    return site


def test_what_nobody_touched_is_valid_and_countersigned(site: Site) -> None:
    check = site.check(server_key=site.server.key.public)
    assert check.valid, check.message
    assert check.countersigned == {1, 2, 3}
    assert [each.statement.number for each in check.receipts] == [1, 2, 3]


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_of_a_receipt_that_is_edited_is_found_and_the_receipt_named(
    site: Site, field: str
) -> None:
    lines = [json.loads(line) for line in site.receipts.read_text().splitlines()]
    place = lines[1]["signed"] if field in lines[1]["signed"] else lines[1]
    place[field] = LEGAL.get(field) or OTHER[type(place[field])](place[field])
    site.receipts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check = site.check()
    assert not check.valid
    assert "receipt 2" in check.message


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_receipt_that_was_cut_out_is_missed(site: Site, gone: int) -> None:
    lines = site.receipts.read_text().splitlines(keepends=True)
    del lines[gone]
    site.receipts.write_text("".join(lines))
    check = site.check()
    assert not check.valid
    assert f"receipt {gone + 1} is missing" in check.message


def test_receipts_that_were_swapped_are_named(site: Site) -> None:
    first, second, third = site.receipts.read_text().splitlines(keepends=True)
    site.receipts.write_text(second + first + third)
    assert "receipt 1 is missing or was moved" in site.check().message


def test_a_receipt_of_a_forger_s_key_is_named(site: Site, tmp_path: Path) -> None:
    create_key(tmp_path / "forger.key")
    sign_receipt(
        site.receipts, receipt(), load_key(tmp_path / "forger.key"), charges=3, head="ab" * 32
    )
    assert "receipt 4 was added" in site.check().message


def test_a_receipt_that_nobody_signed_is_named(site: Site) -> None:
    append_receipt(site.receipts, receipt())
    assert "receipt 4 was added" in site.check().message


def test_a_line_that_a_crash_cut_counts_as_not_written(site: Site) -> None:
    with site.receipts.open("a") as stream:
        stream.write('{"run": "4')
    assert site.check().valid
    site.answer()
    assert len(read_receipts(site.receipts)) == 4
    assert site.check().valid


@pytest.mark.parametrize("field", ["server_key", "server_signature", "head", "charges", "sha256"])
def test_an_edited_countersignature_is_named(site: Site, field: str) -> None:
    path = countersigned_path(site.receipts)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    place = lines[2] if field in lines[2] else lines[2]["statement"]
    place[field] = OTHER[type(place[field])](place[field])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "the countersignature of receipt 3 was edited" in site.check().message


def test_a_countersignature_by_another_key_than_the_pinned_one_is_named(site: Site) -> None:
    assert "receipt 1 is by the key" in site.check(server_key="ab" * 32).message


def test_all_rewound_together_is_found_by_what_the_server_kept(site: Site, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    key_path(old / "bank_a.ledger.db").write_bytes(key_path(site.ledger).read_bytes())
    key_path(old / "bank_a.ledger.db").chmod(0o600)
    rewound = Site(old)
    rewound.answer()
    assert rewound.check().valid
    check = rewound.check(server_copy=site.server.path("bank_a"))
    assert not check.valid
    assert "was replaced by an older copy" in check.message


class TestServer:
    """What the server does not countersign."""

    def test_a_receipt_of_other_bytes(self, site: Site) -> None:
        why = site.take(site.answer().to_bytes(), sent=b"others")
        assert why is not None
        assert "of other bytes" in why

    def test_a_receipt_that_came_before(self, site: Site) -> None:
        why = site.take(site.server.of("bank_a")[-1].statement.to_bytes())
        assert why is not None
        assert "replayed" in why

    def test_a_receipt_of_another_site(self, site: Site) -> None:
        why = site.take(site.answer(site="bank_b").to_bytes())
        assert why is not None
        assert "of another site" in why

    def test_a_receipt_that_was_edited(self, site: Site) -> None:
        said = site.answer().model_copy(update={"charges": 9})
        why = site.take(said.to_bytes())
        assert why is not None
        assert "not signed" in why

    def test_a_receipt_by_another_key_than_before(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path / "other")
        other.folder.mkdir()
        why = site.take(other.answer().to_bytes())
        assert why is not None
        assert "not signed by its key" in why

    @pytest.mark.parametrize("sent", [b"", b"{}", b"[" * 5_000, b"\xff", b" " * 100_000])
    def test_what_is_none(self, site: Site, sent: bytes) -> None:
        why = site.take(sent)
        assert why is not None
        assert "statement" in why

    @pytest.mark.parametrize("anchor", [b"", b"{}", b'{"count": 9}', b"\xff" * 512])
    def test_a_site_that_shows_no_ledger_is_rewound(self, site: Site, anchor: bytes) -> None:
        why = site.server.rewound("bank_a", b"", anchor)
        assert why is not None
        assert "shows no ledger" in why
        assert site.server.rewound("bank_b", b"", anchor) is None


def test_a_damaged_file_of_countersigned_receipts_is_named(site: Site) -> None:
    countersigned_path(site.receipts).write_text("{}\n")
    assert "line 1" in site.check().message
    with pytest.raises(DataError, match="line 1"):
        read_countersigned(countersigned_path(site.receipts))
    with pytest.raises(LedgerError, match="line 1"):
        append_countersigned(countersigned_path(site.receipts), site.server.of("bank_a"))


def test_equal_receipts_have_unlike_hashes_for_a_random_number_blinds_them(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key")
    key = load_key(tmp_path / "a.key")
    one = receipt()
    assert (
        one.signed_by(key, charges=1, head="ab" * 32).digest
        != one.signed_by(key, charges=1, head="ab" * 32).digest
    )


@given(number=st.integers(1, 10**9), charges=st.integers(0, 10**9), size=st.integers(0, 10**12))
def test_a_statement_is_read_back_and_its_length_tells_nothing(
    number: int, charges: int, size: int
) -> None:
    statement = Statement(
        site="bank_a",
        run="1",
        question="ab" * 32,
        sha256="ab" * 32,
        bytes=size,
        number=number,
        previous="",
        charges=charges,
        head="ab" * 32,
        receipt="ab" * 32,
        public_key="ab" * 32,
        signature="ab" * 64,
    )
    assert len(statement.to_bytes()) == STATEMENT_BYTES
    assert Statement.from_bytes(statement.to_bytes()) == statement


def test_what_travels_names_no_budget(site: Site) -> None:
    said = site.server.of("bank_a")[0]
    assert isinstance(said, Countersigned)
    assert not {"population", "epsilon", "total_epsilon", "remaining_epsilon"} & set(
        type(said.statement).model_fields
    )
    assert {"epsilon", "population"} <= set(Receipt.model_fields)
