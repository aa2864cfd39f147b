"""`fedistill simulate` on images with an ONNX encoder and with one by import path."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import SITES, Flower
from tests.encoders import export_cnn, write_digits

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("kind", "mechanism"), [("onnx", "dp-probe"), ("tests.encoders:pooled", "votes")]
)
def test_three_sites_teach_digits_through_an_encoder(
    flower: Flower, tmp_path: Path, kind: str, mechanism: str
) -> None:
    digits = write_digits(tmp_path / "digits.npz")
    encoder = export_cnn(tmp_path / "cnn.onnx") if kind == "onnx" else kind
    flower.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    ran = flower.simulate(
        f'dataset="{digits}" partition="iid" encoder="{encoder}" mechanism="{mechanism}" '
        'epsilon=4.0 prune-ratio=0.0 quantize="none"'
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = flower.run_folders()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["privacy"]["sites"]) == set(SITES)
    assert summary["metrics"]["student"]["auc"] > 0.9
