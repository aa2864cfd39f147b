"""`simulations/mnist_3` on an image set stored as MNIST is, of scikit-learn's digits."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.e2e.conftest import RESULTS, Flower

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

APP = "simulations/mnist_3"


def test_one_command_trains_the_encoder_and_a_student_that_begins_as_it(
    flower: Flower, tmp_path: Path
) -> None:
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target
    path = tmp_path / "digits.npz"
    np.savez(
        path,
        x_train=images[:1500],
        y_train=labels[:1500],
        x_test=images[1500:],
        y_test=labels[1500:],
    )
    config = (
        f'dataset="{path}" proxy-fraction=0.2 test-fraction=0.15 encoder-epochs=3 '
        "student-epochs=200 epsilon=4.0"
    )
    ran = flower.command("fedistill", "simulate", APP, "-c", config, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = flower.run_folders()
    assert {each.name for each in folder.iterdir()} >= RESULTS
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["privacy"]["sites"]) == {"site_a", "site_b", "site_c"}
    assert summary["metrics"]["student"]["accuracy"] > 0.6
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["student"] == "encoder"
    assert manifest["encoding"]["image"] == {"channels": 1, "side": 8}
    assert "encoder 3/3" in ran.stdout
    (encoder,) = (Path(flower.environment["FEDISTILL_HOME"]) / "encoders").glob("*.onnx")
    assert encoder.stat().st_size < 10**6
