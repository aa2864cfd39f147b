"""Bad input to `fedistill simulate`: refused in one sentence before anything starts or is spent."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Flower
from tests.e2e.ledgers import contents

pytestmark = pytest.mark.e2e

COLUMNS = "income,age,late"


def write_csv(path: Path, labels: str = "01") -> Path:
    rows = np.random.default_rng(0).normal(size=(200, 3)).round(3)
    lines = [
        f"{','.join(map(str, row))},{i % 2},{labels[i % len(labels)].strip()}"
        for i, row in enumerate(rows)
    ]
    path.write_text("\n".join([f"{COLUMNS},vip,default", *lines]) + "\n")
    return path


def write_png(path: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    header = chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    return path


def write_text(path: Path) -> Path:
    path.write_text("income and age, in words")
    return path


def link_to_itself(path: Path) -> Path:
    """A path that nobody can read, root included."""
    path.symlink_to(path)
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def csv(config: str, labels: str = "01") -> Callable[[Path], str]:
    return lambda folder: f'dataset="{write_csv(folder / "bank.csv", labels)}" {config}'


def dataset(write: Callable[[Path], Path], name: str) -> Callable[[Path], str]:
    return lambda folder: f'dataset="{write(folder / name)}" label-column="default"'


def below_a_file(field: str) -> Callable[[Path], str]:
    return lambda folder: f'{field}="{write_text(folder / "notes.txt")}/run"'


def damaged_ledger(folder: Path) -> str:
    write_text(folder / "bank_a.ledger.db")
    return f'ledger-dir="{folder}"'


REFUSED: dict[str, tuple[str | Callable[[Path], str], tuple[str, ...]]] = {
    "unknown key": ("probe-step=3", ("'probe-step'", "did you mean 'probe-steps'?")),
    "negative epsilon": ("epsilon=-1", ("epsilon=-1", "greater than 0", "raise epsilon")),
    "no number": ("epsilon=nan", ("epsilon=nan", "must be a finite number")),
    "no delta": ("delta=0", ("delta=0", "greater than 0", "raise delta")),
    "large delta": ("delta=0.01", ("delta=0.01", "at most 0.001", "lower delta")),
    "no site": ("num-sites=0", ("num-sites=0", "at least 1", "raise num-sites")),
    "all pruned": ("prune-ratio=0.95", ("prune-ratio=0.95", "at most 0.9", "lower prune-ratio")),
    "too many": ("min-sites=4", ("min-sites=4", "at most num-sites=3", "lower min-sites")),
    "text for a number": ("epsilon=much", ("epsilon='much'", "must be a number")),
    "no label column": (csv(""), ("label-column=''", "choose one of", "default")),
    "unknown label column": (
        csv('label-column="defualt"'),
        ("label-column='defualt'", "'default'"),
    ),
    "no label at all": (
        csv('label-column="default"', labels=" "),
        ("label-column='default'", "0 classes", "at least 2"),
    ),
    "missing site": (
        csv('label-column="vip" site-column="default"', labels="010 "),
        ("site-column='default'", "50 of 200", "every row must have a value"),
    ),
    "unknown column": (
        'partition="quantile:LIMIT_BALL"',
        ("partition='quantile:LIMIT_BALL'", "not a feature", "LIMIT_BAL"),
    ),
    "text named npz": (dataset(write_text, "bank.npz"), ("bank.npz'", "must be", "npz file")),
    "picture named csv": (dataset(write_png, "bank.csv"), ("bank.csv'", "must be", "CSV file")),
    "other suffix": (dataset(write_text, "bank.xlsx"), ("bank.xlsx'", ".csv", ".npz", ".parquet")),
    "unreadable": (dataset(link_to_itself, "bank.csv"), ("bank.csv'", "cannot be read")),
    "folder": (dataset(make_folder, "bank.csv"), ("bank.csv'", "Is a directory", "check the path")),
    "relative path": ('dataset="bank.csv"', ("dataset='bank.csv'", "absolute path")),
    "unknown set": ('dataset="credit_defualt"', ("'credit_defualt'", "credit_default")),
    "output below a file": (below_a_file("output-dir"), ("output-dir='", "notes.txt' is not")),
    "ledgers below a file": (below_a_file("ledger-dir"), ("ledger-dir='", "notes.txt' is not")),
    "no such mechanism at a site": (
        'site-mechanisms="bank_b=dp-prob"',
        ("site-mechanisms='bank_b=dp-prob', bank_b: mechanism='dp-prob'", "'dp-probe'"),
    ),
    "units that a mechanism cannot protect": (
        csv(
            'label-column="default" partition="iid" unit-column="income" mechanism="dp-ebm" '
            'float-noise="allow"'
        ),
        ("unit-column='income'", "mechanism='dp-ebm' guarantees record level", "choose one of"),
    ),
    "damaged ledger": (damaged_ledger, ("ledger-dir='", "bank_a.ledger.db", "backup")),
}


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_before_anything_is_spent(
    flower: Flower, tmp_path: Path, config: str | Callable[[Path], str], words: tuple[str, ...]
) -> None:
    text = config if isinstance(config, str) else config(tmp_path)
    before = contents(tmp_path)
    result = flower.simulate(text)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("fedistill: ")
    assert result.stderr.count("\n") == 1
    assert [word for word in words if word not in result.stderr] == [], result.stderr
    assert result.stdout == ""
    assert contents(tmp_path) == before
    assert list(flower.folder.iterdir()) == []
    assert flower.processes() == []
