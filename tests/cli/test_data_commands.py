"""`fedistill data`: what ships, and that a written file is read as the set it came from."""

import csv
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from fedistill.cli import shipped_file
from fedistill.cli.application import OVERRIDE
from fedistill.cli.shipped_file import describe_sets, licences_in_words, write_set
from fedistill.data import SHIPPED, Split, Table, load_table, split_table
from fedistill.data.wording import listing
from fedistill.errors import DataError

Command = Callable[..., CompletedProcess[str]]
SUFFIXES = (".csv", ".parquet")


def split(table: Table) -> Split:
    return split_table(table, proxy_fraction=0.2, test_fraction=0.15)


def named(table: Table, labels: np.ndarray) -> list[str]:
    return [table.classes[label] for label in labels]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", SHIPPED)
def test_a_written_file_is_read_as_the_set_it_came_from(
    name: str, suffix: str, tmp_path: Path
) -> None:
    shipped, path = SHIPPED[name], tmp_path / f"own{suffix}"
    rows = write_set(name, path, force=False)
    roles = {"label_column": shipped.label_column, "site_column": shipped.site_column}
    whole, own = load_table(name, **roles), load_table(str(path), **roles)
    assert rows == len(whole.labels)
    assert list(own.columns) == list(whole.columns)
    assert own.site == whole.site
    assert named(own, own.labels) == named(whole, whole.labels)
    first, second = split(whole), split(own)
    assert second.proxy == first.proxy
    assert second.proxy.schema == first.proxy.schema
    np.testing.assert_array_equal(second.test.rows, first.test.rows)
    np.testing.assert_array_equal(second.private.rows, first.private.rows)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_written_csv_holds_texts_and_empty_cells(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    write_set(name, path, force=False)
    whole = load_table(name)
    with path.open(newline="") as file:
        header, *lines = csv.reader(file)
    labels = [line[header.index(SHIPPED[name].label_column)] for line in lines]
    assert labels == named(whole, whole.labels)
    assert not {"nan", "NaN", "None", "null"} & {cell for line in lines for cell in line}
    for column in whole.columns:
        empty = [line[header.index(column)] == "" for line in lines]
        np.testing.assert_array_equal(empty, whole.columns[column].missing())


def test_list_shows_every_set_in_80_columns(fedistill: Command) -> None:
    result = fedistill("data", "list")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name, shipped in SHIPPED.items():
        (line,) = [line for line in lines if line.startswith(name)]
        table = load_table(name)
        assert line.split() == [
            name,
            f"{len(table.labels):,}",
            str(len(table.columns)),
            str(len(table.classes)),
            shipped.label_column,
            shipped.site_column or "none",
        ]


def test_every_set_has_a_licence_by_name() -> None:
    for each in describe_sets():
        assert re.fullmatch(r"CC( BY|0)[\w -]* \d\.\d", each.licence)


def test_licences_that_differ_name_their_sets() -> None:
    described = describe_sets()[0]
    fields = {field: getattr(described, field) for field in described.__dataclass_fields__}
    other = type(described)(**fields | {"name": "other", "licence": "CC0 1.0"})
    assert licences_in_words([described]) == described.licence
    both = licences_in_words([described, other])
    assert both == f"{described.licence} for {described.name}; CC0 1.0 for other"


@pytest.mark.parametrize("file", ["loans.csv", "my loans.parquet"])
def test_write_prints_the_roles_as_simulate_takes_them(
    fedistill: Command, tmp_path: Path, file: str
) -> None:
    path = tmp_path / file
    result = fedistill("data", "write", "credit_default", path)
    assert (result.returncode, result.stderr) == (0, "")
    written, use = result.stdout.splitlines()
    assert written == f"wrote 30,000 rows to {path}"
    *_, option, override = shlex.split(use)
    keys = {key: value.strip('"') for key, value in OVERRIDE.findall(override)}
    assert option == "-c"
    assert keys == {"dataset": str(path), "label-column": "default_next_month"}
    assert len(load_table(keys["dataset"], label_column=keys["label-column"]).labels) == 30_000


@pytest.mark.parametrize(
    ("name", "file", "complaint"),
    [
        (
            "credit_defalt",
            "a.csv",
            "NAME='credit_defalt' must be a shipped data set ({sets}): did you mean "
            "'credit_default'?",
        ),
        (
            "credit_default",
            "a.txt",
            "FILE='{path}' must end in .csv or .parquet: choose another name",
        ),
        (
            "credit_default",
            "there.csv",
            "FILE='{path}' must not be there yet: choose another name, or replace it with --force",
        ),
        (
            "credit_default",
            "folder.csv",
            "FILE='{path}' must not be there yet: choose another name",
        ),
        (
            "credit_default",
            "no/a.csv",
            "FILE='{path}' cannot be written (No such file or directory): choose a folder that "
            "exists and that you may write to",
        ),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_exit_code_2(
    fedistill: Command, tmp_path: Path, name: str, file: str, complaint: str
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    result = fedistill("data", "write", name, tmp_path / file)
    sentence = complaint.format(sets=listing(SHIPPED), path=tmp_path / file)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"fedistill: {sentence}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_force_replaces_a_file(fedistill: Command, tmp_path: Path) -> None:
    path = tmp_path / "there.csv"
    path.write_text("mine")
    assert fedistill("data", "write", "credit_default", path, "--force").returncode == 0
    assert path.read_text().startswith("LIMIT_BAL,")
    assert os.listdir(tmp_path) == ["there.csv"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "there.csv"
    path.write_text("mine")

    def fill_the_disk(_: object, partial: Path) -> None:
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shipped_file, "_write_csv", fill_the_disk)
    with pytest.raises(DataError, match="cannot be written"):
        write_set("credit_default", path, force=True)
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["there.csv"]
