import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from fedistill.errors import DataError
from fedistill.evaluate import files
from fedistill.evaluate.metrics import Scores
from fedistill.evaluate.summary import SiteWire, Stage, read_summary, write_summary


def test_summary_survives_the_file(summary, tmp_path):
    path = tmp_path / "deep" / "summary.json"
    write_summary(summary, path)
    assert read_summary(path) == summary


def test_file_has_the_keys_that_programs_rely_on(summary, tmp_path):
    write_summary(summary, tmp_path / "summary.json")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert {"task", "dataset", "mechanism", "seed", "metrics", "privacy", "wire"} <= set(written)
    assert set(written["metrics"]) == {
        "student", "student_fp32", "ensemble", "teachers", "central_reference",
        "student_classes", "student_calibration", "federated",
    }  # fmt: skip
    assert {"auc", "accuracy", "log_loss", "ece"} <= set(written["metrics"]["student"])
    assert {"auc", "accuracy", "log_loss", "ece"} <= set(written["metrics"]["teachers"]["bank_a"])
    assert set(written["privacy"]["sites"]["bank_a"]) == {
        "epsilon", "total_epsilon", "remaining_epsilon", "delta", "unit", "adjacency", "views",
        "mechanism", "float_noise",
    }  # fmt: skip
    assert set(written["privacy"]["sites"]["bank_a"]["views"]) == {"everyone", "server"}
    assert set(written["privacy"]["person"]) == {"one_site", "every_site", "delta"}
    assert set(written["wire"]["sites"]["bank_a"]) == {
        "bytes_up", "bytes_down", "bytes_evaluation",
    }  # fmt: skip
    assert set(written["compression"][0]) == {
        "stage", "precision", "shipped", "parameters", "bytes", "metric", "agreement",
        "latency_ms_batch_1", "latency_ms_batch_256", "bytes_deflated",
    }  # fmt: skip
    assert written["timings"]["labels"] == 38.9
    assert written["config"]["secure-aggregation"] is False


def test_file_has_the_keys_of_every_optional_part(five_sites, tmp_path):
    write_summary(five_sites, tmp_path / "summary.json")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert set(written["metrics"]["student_classes"]["positive"]) == {
        "recall", "precision", "auprc", "rows",
    }  # fmt: skip
    assert set(written["metrics"]["student_calibration"][0]) == {
        "predicted", "observed", "low", "high", "rows",
    }  # fmt: skip
    site = written["sites"]["STMW"]
    assert set(site) == {"rows", "misfit_rows", "weight", "everyone", "own"}
    assert set(site["everyone"]) == {
        "test_rows", "local", "local_private", "student", "gain", "gain_private",
    }  # fmt: skip
    assert set(site["own"]["gain"]) == {"value", "standard_error"}
    assert written["sites"]["SVHD"]["weight"] is None
    assert set(written["left_out"]) == {"SVI"}
    assert read_summary(tmp_path / "summary.json") == five_sites


def test_summary_without_the_optional_parts_is_read(summary, tmp_path):
    written = summary.model_dump(mode="json", exclude={"sites", "left_out"})
    del written["metrics"]["student_classes"], written["metrics"]["student_calibration"]
    del written["privacy"]["person"]
    (tmp_path / "summary.json").write_text(json.dumps(written))
    privacy = summary.privacy.model_copy(update={"person": None})
    assert read_summary(tmp_path / "summary.json") == summary.model_copy(
        update={"privacy": privacy}
    )


def test_what_is_not_a_number_is_written_as_null(summary, tmp_path):
    stage = summary.compression[0].model_dump() | {"agreement": math.nan, "metric": math.inf}
    odd = summary.model_copy(update={"compression": (Stage(**stage),)})
    write_summary(odd, tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text()
    written = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the file"))
    assert written["compression"][0]["agreement"] is None
    assert written["compression"][0]["metric"] is None
    assert read_summary(tmp_path / "summary.json") == odd


def test_numpy_numbers_are_taken_as_numbers():
    assert Scores(auc=np.float32(0.5), accuracy=1, log_loss=None, ece=np.float64("nan")).ece is None
    wire = SiteWire(bytes_up=np.int64(5), bytes_down=1, bytes_evaluation=2)
    assert type(wire.bytes_up) is int


def test_misspelt_key_is_refused():
    with pytest.raises(ValidationError, match="bytes_sent"):
        SiteWire(bytes_up=1, bytes_down=1, bytes_evaluation=0, bytes_sent=1)


def test_summary_of_a_deployment_has_null_where_figures_stay_at_the_sites(
    one_site_left_out, tmp_path
):
    write_summary(one_site_left_out, tmp_path / "summary.json")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["metrics"]["teachers"] is None
    assert written["metrics"]["central_reference"] is None


@pytest.mark.parametrize(
    ("content", "says"),
    [("{}", "run_id: field required"), ("not json", "invalid json"), (None, "cannot be read")],
)
def test_file_that_is_no_summary_is_named_with_its_first_fault(tmp_path, content, says):
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=says):
        read_summary(path)


def test_crash_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    files.write_atomically(path, "old")

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in Path(tmp_path).iterdir()] == ["summary.json"]
