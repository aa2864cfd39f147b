"""Each bad input gets a `DataError` that names the field, its value, the bound and the remedy."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fedistill.data import load_table
from fedistill.errors import DataError


def refusal(dataset: str | Path, **columns: str) -> str:
    with pytest.raises(DataError) as caught:
        load_table(str(dataset), **columns)
    return str(caught.value)


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def npz(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "table.npz"
    np.savez(path, **arrays)
    return path


def test_unknown_shipped_set_names_the_nearest() -> None:
    assert "did you mean 'credit_default'?" in refusal("credit-default")
    assert "must be a shipped data set ('credit_default', 'heart_disease', " in refusal("mnist")


def test_relative_path_is_refused_with_the_reason(patients_csv: Path) -> None:
    message = refusal("data/patients.csv")
    assert "dataset='data/patients.csv' must be an absolute path" in message
    assert "working directories" in message
    assert repr(str(Path.cwd() / "data/patients.csv")) in message
    assert "must be an absolute path" in refusal("patients.csv")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "cannot be read (Is a directory)" in refusal(tmp_path / "folder.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_file_without_permission(patients_csv: Path) -> None:
    patients_csv.chmod(0)
    assert "cannot be read (Permission denied)" in refusal(patients_csv)


def test_unknown_suffix(tmp_path: Path) -> None:
    assert "must end in .csv, .npz, .parquet" in refusal(tmp_path / "table.xlsx")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_text_under_a_binary_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    path.write_text("x,y\n1,0\n")
    assert "as its name says, but" in refusal(path)


def test_an_array_file_under_the_name_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    with path.open("wb") as file:
        np.save(file, np.ones((3, 2)))
    assert "it is no zip archive of arrays" in refusal(path)


def test_binary_under_the_name_of_a_csv(tmp_path: Path, credit_npz: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(credit_npz.read_bytes())
    assert "must be a CSV file, as its name says, but it holds binary data" in refusal(path)


@pytest.mark.parametrize("keep", [100, 2000, -30])
def test_cut_npz(credit_npz: Path, keep: int) -> None:
    credit_npz.write_bytes(credit_npz.read_bytes()[:keep])
    assert "must be an npz file, as its name says, but" in refusal(credit_npz)


def test_npz_with_flipped_bytes(tmp_path: Path, private: Any) -> None:
    path = tmp_path / "table.npz"
    np.savez_compressed(path, X=private.rows, y=private.labels)
    content = bytearray(path.read_bytes())
    content[500:520] = bytes(20)
    path.write_bytes(content)
    assert "must be an npz file, as its name says, but" in refusal(path)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    assert "must hold an array 'X' of rows, but holds 'word/document.xml'" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X", "text")
    assert "array 'X' of shape ()" in refusal(path)


def test_cut_parquet(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pa.table({"x": range(1000), "y": [0, 1] * 500}), path)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert "must be a Parquet file, as its name says, but" in refusal(path, label_column="y")
    path.write_bytes(content[:200] + bytes(400) + content[600:])
    assert "must be a Parquet file, as its name says, but" in refusal(path, label_column="y")


def test_ragged_csv(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, "x,y\n1,0\n2,1,7\n"), label_column="y")
    assert "Expected 2 columns, got 3" in message


def test_csv_with_semicolons(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, "x;y\n1;0\n2;1\n"), label_column="y")
    assert "separates columns by ';', which must be a comma" in message


def test_empty_csv(tmp_path: Path) -> None:
    assert "Empty CSV file" in refusal(csv(tmp_path, ""), label_column="y")


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    path = npz(tmp_path, X=np.array([[Payload()]], dtype=object), y=np.array([0]))
    assert "array 'X' holds pickled Python objects, which are never loaded" in refusal(path)
    path = npz(tmp_path, X=np.ones((1, 1)), y=np.array([Payload()], dtype=object))
    assert "array 'y' holds pickled Python objects" in refusal(path)
    assert not (tmp_path / "ran").exists()


def test_npz_arrays_that_do_not_fit(tmp_path: Path) -> None:
    rows = np.ones((4, 2))
    assert "must hold an array 'X'" in refusal(npz(tmp_path, x_train=rows))
    assert "array 'X' of shape (4,)" in refusal(npz(tmp_path, X=rows[:, 0], y=np.arange(4)))
    assert "'y' has 3 entries" in refusal(npz(tmp_path, X=rows, y=np.arange(3)))
    names = np.array(["a", "b", "c"])
    message = refusal(npz(tmp_path, X=rows, y=np.arange(4), features=names))
    assert "features=3 names must be one for each of the 2 columns of X" in message
    message = refusal(npz(tmp_path, X=rows, y=np.arange(4), features=np.array(["a", "y"])))
    assert "'y' is a column of X and an array of its own" in message
    silo = {"silo": np.array([0, 1, 2, 0]), "silo_names": np.array(["p", "q"])}
    message = refusal(npz(tmp_path, X=rows, y=np.arange(4), **silo), site_column="silo")
    assert "array 'silo' must hold integers in 0..1" in message


def test_label_column_is_required_where_the_format_has_none(patients_csv: Path) -> None:
    message = refusal(patients_csv)
    assert message.startswith("label-column='' must name the column to predict")
    assert "'age', 'smoker', 'bmi', 'hospital', 'outcome'" in message


def test_missing_columns_name_the_nearest(patients_csv: Path) -> None:
    message = refusal(patients_csv, label_column="Outcomes")
    assert message.startswith("label-column='Outcomes' is no column of dataset=")
    assert message.endswith("did you mean 'outcome'?")
    message = refusal(patients_csv, label_column="outcome", site_column="hopsital")
    assert message.startswith("site-column='hopsital' is no column of dataset=")
    assert message.endswith("did you mean 'hospital'?")


def test_ignored_columns_must_be_there(patients_csv: Path) -> None:
    with pytest.raises(DataError, match=r"ignore-columns='Age' is no column .*mean 'age'\?"):
        load_table(str(patients_csv), label_column="outcome", ignore_columns=("bmi", "Age"))


def test_npz_without_labels(tmp_path: Path) -> None:
    assert "label-column='y' is no column" in refusal(npz(tmp_path, X=np.ones((4, 2))))


def test_one_column_cannot_have_two_roles(patients_csv: Path) -> None:
    message = refusal(patients_csv, label_column="outcome", site_column="outcome")
    assert "site-column='outcome' must differ from label-column" in message
    message = refusal(patients_csv, label_column="outcome", unit_column="outcome")
    assert "unit-column='outcome' must differ from label-column" in message
    message = refusal(
        patients_csv, label_column="outcome", site_column="hospital", unit_column="hospital"
    )
    assert "unit-column='hospital' must differ from site-column" in message


def test_fewer_than_two_classes(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, "x,y\n1,a\n2,a\n"), label_column="y")
    assert "label-column='y' has 1 class (a) and must have at least 2" in message


def test_continuous_labels(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, "x,y\n1,0.25\n2,1\n"), label_column="y")
    assert "label-column='y' holds 0.25 in 1 rows and must hold integers" in message
    text = "x,y\n" + "".join(f"0,{i}\n" for i in range(101))
    message = refusal(csv(tmp_path, text), label_column="y")
    assert "has 101 distinct values and must have at most 100 classes" in message
    message = refusal(npz(tmp_path, X=np.ones((2, 1)), y=np.array([0, np.inf])))
    assert "label-column='y' holds inf" in message


def test_labels_of_another_type(tmp_path: Path) -> None:
    path = tmp_path / "days.parquet"
    days = pa.array([18_000, 18_001], pa.int32()).cast(pa.date32())
    pyarrow.parquet.write_table(pa.table({"x": [1, 2], "y": days}), path)
    message = refusal(path, label_column="y")
    assert "label-column='y' holds values of type date32[day] and must hold integers" in message


@pytest.mark.parametrize(
    "values", [[[1], [2]], [b"a", b"b"], [{"a": 1}, {"a": 2}]], ids=["list", "binary", "struct"]
)
def test_features_that_no_schema_can_describe(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "nested.parquet"
    pyarrow.parquet.write_table(pa.table({"x": [1, 2], "notes": values, "y": [0, 1]}), path)
    message = refusal(path, label_column="y")
    assert message.startswith("column 'notes' holds values of type ")
    assert "name it in ignore-columns" in message
    table = load_table(str(path), label_column="y", ignore_columns=("notes",))
    assert tuple(table.columns) == ("x",)


def test_csv_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("x,city,y\n1,Köln,0\n2,Ulm,1\n".encode("latin-1"))
    message = refusal(path, label_column="y")
    assert message.startswith("column 'city' holds values of type binary")
    assert message.endswith("save the file as UTF-8")


def test_repeated_unnamed_and_index_columns(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, "x,x,y\n1,2,0\n2,3,1\n"), label_column="y")
    assert "columns 'x' are there more than once" in message
    message = refusal(csv(tmp_path, ",x,y\n0,2,0\n1,3,1\n"), label_column="y")
    assert "column 1 of 3 has no name" in message
    names = np.array(["a", "a"])
    message = refusal(npz(tmp_path, X=np.ones((2, 2)), y=np.arange(2), features=names))
    assert "columns 'a' are there more than once" in message
    path = tmp_path / "frame.parquet"
    pyarrow.parquet.write_table(pa.table({"y": [0, 1], "__index_level_0__": [5, 6]}), path)
    assert "is a data frame's index" in refusal(path, label_column="y")


def test_no_rows_and_no_features(tmp_path: Path) -> None:
    assert "has 0 rows" in refusal(csv(tmp_path, "x,y\n"), label_column="y")
    assert "has 0 rows" in refusal(npz(tmp_path, X=np.ones((0, 2)), y=np.ones(0)))
    message = refusal(csv(tmp_path, "y\n0\n1\n"), label_column="y")
    assert "has 0 feature columns and must have at least 1" in message


@pytest.mark.parametrize("site", ["../b", "a/b", ".hidden", "a\x1bb", "b" * 65])
def test_site_values_that_cannot_name_a_folder(tmp_path: Path, site: str) -> None:
    path = npz(tmp_path, X=np.ones((2, 1)), y=np.arange(2), silo=np.array(["a", site]))
    message = refusal(path, site_column="silo")
    assert f"site-column='silo' holds {site!r}" in message


def test_missing_and_too_many_sites(tmp_path: Path) -> None:
    path = npz(tmp_path, X=np.ones((2, 1)), y=np.arange(2), silo=np.array(["a", ""]))
    message = refusal(path, site_column="silo")
    assert "site-column='silo' is missing (NaN or empty) in 1 of 2 rows" in message
    path = npz(tmp_path, X=np.ones((1001, 1)), y=np.arange(1001) % 2, silo=np.arange(1001))
    message = refusal(path, site_column="silo")
    assert "has 1001 distinct values and must have at most 1000 sites" in message


IMAGES = np.zeros((4, 8, 8))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"x_test": np.zeros((4, 64))}, "array 'x_test' of shape (4, 64)"),
        ({"x_test": np.zeros((4, 9, 9))}, "have 64 pixels and those of 'x_test' 81"),
        ({"y_test": np.zeros(3, int)}, "array 'y_test' has 3 labels"),
    ],
)
def test_an_image_set_whose_arrays_do_not_fit(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    whole = {"x_train": IMAGES, "y_train": np.arange(4), "x_test": IMAGES, "y_test": np.arange(4)}
    assert named in refusal(npz(tmp_path, **(whole | changed)))
