import shutil
from dataclasses import replace

import pytest

from benchmarks.baselines.rows import CENTRAL, LOCAL, OURS, Result, Row, line, read
from benchmarks.baselines.settings import SETTINGS
from benchmarks.vs_fedavg_dpsgd import compare, measure, number_of_rows

LAST = len(SETTINGS["raw"]) - 1


def fake_run(made):
    """Tuning prefers the last setting; on test rows it would be the worst."""

    def run(rows):
        made.extend(rows)
        return {
            row: Result(row=row, auc=row.setting / 100 if row.tuning else 0.9 - row.setting / 100)
            for row in rows
        }

    return run


def test_settings_are_chosen_on_proxy_rows_alone():
    made = []
    (cell,) = compare("small", [1.0], 2, fake_run(made))
    assert {result.row.setting for result in cell.raw + cell.features} == {LAST}
    assert {row.setting for row in made if row.setting >= 0 and not row.tuning} == {LAST}


def test_every_row_is_made_once():
    made = []
    compare("small", [1.0, 2.0], 3, fake_run(made))
    assert len(made) == len(set(made)) == number_of_rows(2, 3)


def test_results_are_paired_by_seed():
    (cell,) = compare("small", [1.0], 3, fake_run([]))
    for results in (cell.ours, cell.local, cell.raw, cell.features):
        assert [result.row.seed for result in results] == [0, 1, 2]


def test_kept_rows_come_back_while_the_data_stay_the_same(table, tmp_path):
    shutil.copy(table, tmp_path / "small.npz")
    kept = tmp_path / "rows.jsonl"
    result = Result(
        row=Row(dataset="small", method="raw", epsilon=1.0, seed=0, setting=1), auc=0.7, bytes_up=5
    )
    kept.write_text(line(result, tmp_path))
    assert read(kept, tmp_path) == {result.row: result}
    other = tmp_path / "other"
    other.mkdir()
    (other / "small.npz").write_bytes(b"another table")
    assert read(kept, other) == {}


@pytest.mark.parametrize("method", ["raw", "features", LOCAL])
def test_a_private_method_beats_guessing_and_loses_to_pooled_rows(table, method):
    if method in SETTINGS:
        pytest.importorskip("opacus", reason="needs fedistill[bench]")
    setting = 0 if method in SETTINGS else -1
    row = Row(dataset=table.stem, method=method, epsilon=4.0, seed=0, setting=setting)
    pooled = measure(replace(row, method=CENTRAL, epsilon=0.0, setting=-1), table.parent)
    assert 0.6 < measure(row, table.parent).auc < pooled.auc + 0.05


@pytest.mark.slow
def test_ours_reports_what_was_shipped(table):
    row = Row(dataset=table.stem, method=OURS, epsilon=4.0, seed=0)
    result = measure(row, table.parent)
    assert result.target == pytest.approx(result.auc, abs=0.03)
    assert result.shipped
    assert result.bytes_up > 0
