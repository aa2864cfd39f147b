import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fedistill.data import LabelledRows, Table, load_table
from tests.data.tables import rows_of, table_of, write_csv


def test_csv_gives_features_with_nan_for_empty_cells(patients_csv: Path) -> None:
    table = load_table(str(patients_csv), label_column="outcome", site_column="hospital")
    assert tuple(table.columns) == ("age", "smoker", "bmi")
    expected = [
        [63, 1, 22.5],
        [41, 0, np.nan],
        [55, np.nan, 31.25],
        [70, 1, 19],
        [38, 0, 27.5],
        [49, 1, 24],
    ]
    assert np.array_equal(rows_of(table), np.array(expected, dtype=np.float32), equal_nan=True)


def test_text_labels_become_indices_of_the_sorted_classes(patients_csv: Path) -> None:
    table = load_table(str(patients_csv), label_column="outcome", site_column="hospital")
    assert table.classes == ("healed", "ill", "relapsed")
    assert table.labels.tolist() == [0, 1, 0, 1, 2, 0]
    assert table.labels.dtype == np.int64


def test_a_site_column_is_no_feature_and_says_whose_row_it_is(patients_csv: Path) -> None:
    table = load_table(str(patients_csv), label_column="outcome", site_column="hospital")
    assert table.site == ("north", "south") * 3
    assert table.name == "patients"


def test_boolean_labels(patients_csv: Path) -> None:
    text = patients_csv.read_text().replace("55,,", "55,false,")
    text = text.replace("north", "1").replace("south", "2")
    patients_csv.write_text("\n".join(line.rpartition(",")[0] for line in text.splitlines()))
    table = load_table(str(patients_csv), label_column="smoker", site_column="hospital")
    assert table.classes == ("false", "true")
    assert table.labels.tolist() == [1, 0, 0, 1, 0, 1]
    assert table.site == ("1", "2") * 3


@pytest.mark.parametrize(
    "labels", [np.array([0, 1, np.nan, np.nan]), np.array(["a", "b", "", " NaN"])]
)
def test_missing_labels_have_no_index(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "gaps.npz", X=np.ones((4, 2)), y=labels)
    table = load_table(str(tmp_path / "gaps.npz"))
    assert table.labels.tolist() == [0, 1, -1, -1]
    assert len(table.classes) == 2


def test_agreed_classes_keep_their_order_whatever_a_table_holds(patients_csv: Path) -> None:
    agreed = ("relapsed", "ill", "dead")
    table = load_table(str(patients_csv), label_column="outcome", classes=agreed)
    assert table.classes == agreed
    assert table.labels.tolist() == [-1, 1, -1, 1, 0, -1]


@pytest.mark.parametrize("lines", [["1", "0"], ["1.0", "0.0"], [" 01", "0"], ["1", "0", "none"]])
def test_agreed_classes_of_numbers_are_found_in_any_spelling(
    tmp_path: Path, lines: list[str]
) -> None:
    table = table_of(
        tmp_path / "few.csv", "x,y", *(f"9,{label}" for label in lines), classes=("0", "1")
    )
    assert table.labels[:2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        ("10,9,10", ("9", "10"), [1, 0, 1]),
        ("-1,1,-1", ("-1", "1"), [0, 1, 0]),
        ("1.0,0.0,1.0", ("0", "1"), [1, 0, 1]),
        ("b,a,b", ("a", "b"), [1, 0, 1]),
    ],
)
def test_classes_are_sorted_by_value(
    tmp_path: Path, labels: str, classes: tuple[str, ...], indices: list[int]
) -> None:
    path = tmp_path / "few.csv"
    path.write_text(
        "x,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels.split(",")))
    )
    table = load_table(str(path), label_column="y")
    assert table.classes == classes
    assert table.labels.tolist() == indices


def test_blanks_around_names_and_texts_do_not_count(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "blanks.csv", "x, y , site", "1, b ,south ", "2,a, north", "3,b,? ")
    table = load_table(str(path), label_column="y", ignore_columns=("site",))
    assert table.classes == ("a", "b")
    path.write_text(path.read_text().replace("? ", "south"))
    table = load_table(str(path), label_column="y", site_column="site")
    assert table.site == ("south", "north", "south")


def test_line_breaks_in_quotes_are_part_of_a_text(tmp_path: Path) -> None:
    table = table_of(tmp_path / "quoted.csv", "note,y", '"two\nlines",a', '"one, line",b')
    assert list(table.columns["note"].texts) == ["two\nlines", "one, line"]


def test_ignored_columns_are_no_features(patients_csv: Path) -> None:
    table = load_table(
        str(patients_csv), label_column="outcome", ignore_columns=("bmi", "hospital", "outcome")
    )
    assert tuple(table.columns) == ("age", "smoker")


def test_a_csv_column_that_turns_fractional_late_is_read_whole(tmp_path: Path) -> None:
    """Arrow infers types block by block; a megabyte of integers must not fix the type."""
    path = tmp_path / "long.csv"
    rows = 300_000
    path.write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(rows)) + "0.5,0\n")
    assert path.stat().st_size > 2**21
    table = load_table(str(path), label_column="y")
    assert table.columns["x"].values[-2:].tolist() == [rows - 1, 0.5]


def test_npz_keeps_values_names_and_labels(credit_npz: Path, private: LabelledRows) -> None:
    table = load_table(str(credit_npz))
    assert tuple(table.columns) == private.columns
    assert np.array_equal(rows_of(table), private.rows)
    assert np.array_equal(table.labels, private.labels)
    assert table.classes == ("0", "1")
    assert table.site is None


def test_npz_silo_codes_become_site_names(credit_npz: Path) -> None:
    table = load_table(str(credit_npz), site_column="silo")
    assert table.site is not None
    assert table.site[:4] == ("VA Long Beach", "Hungary", "Cleveland", "VA Long Beach")
    assert "silo" not in table.columns


def test_npz_can_predict_a_feature_instead_of_y(credit_npz: Path) -> None:
    table = load_table(str(credit_npz), label_column="SEX")
    assert "SEX" not in table.columns
    assert "y" not in table.columns
    assert len(table.columns) == 31


def test_npz_without_names_numbers_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "bare.npz"
    np.savez(path, X=np.array([[1, np.nan], [3, 4]], dtype=">f8"), y=np.array(["no", "yes"]))
    table = load_table(str(path))
    assert tuple(table.columns) == ("x0", "x1")
    assert table.classes == ("no", "yes")
    assert np.array_equal(rows_of(table), [[1, np.nan], [3, 4]], equal_nan=True)


@pytest.mark.parametrize("channels", [0, 3])
def test_an_image_set_as_keras_stores_it_becomes_one_column_a_pixel(
    tmp_path: Path, channels: int
) -> None:
    shape = (8, 8, channels) if channels else (8, 8)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    path = tmp_path / "images.npz"
    labels = np.array([0, 1, 0, 1, 1])
    np.savez(path, x_train=pixels[:3], y_train=labels[:3], x_test=pixels[3:], y_test=labels[3:])
    table = load_table(str(path))
    rows = rows_of(table)
    assert rows.shape == (5, 64 * max(channels, 1))
    assert table.labels.tolist() == labels.tolist()
    # All of one channel, line by line, before the next.
    expected = pixels[4, 2, 3].ravel()
    assert rows[4, [64 * each + 2 * 8 + 3 for each in range(len(expected))]].tolist() == list(
        expected
    )


def test_parquet_reads_every_numeric_type(tmp_path: Path) -> None:
    path = tmp_path / "types.parquet"
    columns = {
        "int8": pa.array([1, None, 3], pa.int8()),
        "uint64": pa.array([1, 2, 2**40], pa.uint64()),
        "half": pa.array(np.array([0.5, 1, 2], np.float16)),
        "decimal": pa.array([1, 2, 3]).cast(pa.decimal128(21, 2)),
        "flag": pa.array([True, None, False]),
        "empty": pa.nulls(3),
        "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    table = load_table(str(path), label_column="kind")
    expected = [
        [1, 1, 0.5, 1, 1, np.nan],
        [np.nan, 2, 1, 2, np.nan, np.nan],
        [3, 2**40, 2, 3, 0, np.nan],
    ]
    assert np.array_equal(rows_of(table), np.array(expected, np.float32), equal_nan=True)
    assert table.labels.tolist() == [0, 1, 0]


def test_one_table_is_the_same_from_all_three_formats(
    tmp_path: Path, private: LabelledRows, credit_npz: Path
) -> None:
    stored = pa.table([*private.rows.T, private.labels], names=[*private.columns, "y"])
    pyarrow.parquet.write_table(stored, tmp_path / "credit.parquet")
    text = io.StringIO()
    header = ",".join([*private.columns, "y"])
    np.savetxt(
        text, np.column_stack([private.rows, private.labels]), "%g", ",", header=header, comments=""
    )
    (tmp_path / "credit.csv").write_text(text.getvalue())
    of_npz = load_table(str(credit_npz))
    for name in ("credit.parquet", "credit.csv"):
        table = load_table(str(tmp_path / name), label_column="y")
        assert tuple(table.columns) == tuple(of_npz.columns)
        assert np.array_equal(rows_of(table), rows_of(of_npz))
        assert np.array_equal(table.labels, of_npz.labels)


def test_a_shipped_set_can_predict_another_column(credit: Table) -> None:
    table = load_table("credit_default", label_column="SEX")
    assert table.classes == ("0", "1")
    assert "default_next_month" in table.columns
    assert len(table.columns) == len(credit.columns)
