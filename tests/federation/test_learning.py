"""What the run config says of the student, checked before a site is asked."""

import pytest

from fedistill.config import RunConfig
from fedistill.errors import ConfigError
from fedistill.federation.learning import learning_of
from fedistill.federation.up_front import prepare
from tests.encoders import write_digits


def test_the_keys_reach_the_training() -> None:
    config = RunConfig.from_flat(
        {
            "student": "vit",
            "augmentation": "none",
            "label-propagation": True,
            "self-training": 0.2,
            "student-epochs": 7,
            "cross-fit-folds": 5,
        }
    )
    learning = learning_of(config)
    assert (learning.student, learning.augmentation, learning.label_propagation) == (
        "vit",
        "none",
        True,
    )
    assert (learning.self_training, learning.epochs, learning.folds) == (0.2, 7, 5)


def test_a_student_that_does_not_fit_is_refused_before_a_run(tmp_path) -> None:
    table = RunConfig.from_flat({"student": "cnn"})
    with pytest.raises(ConfigError, match="student='cnn' learns square images"):
        prepare(table)
    digits = write_digits(tmp_path / "digits.npz")
    images = {"dataset": str(digits), "partition": "iid"}
    prepare(RunConfig.from_flat({**images, "student": "cnn"}))
    fewer = {**images, "ignore-columns": "pixel_3", "student": "cnn"}
    with pytest.raises(ConfigError, match="rows of 63 columns must be square images"):
        prepare(RunConfig.from_flat(fewer))
    nobody = {**images, "student": "nowhere:nothing"}
    with pytest.raises(ConfigError, match="student='nowhere:nothing' must make a network"):
        prepare(RunConfig.from_flat(nobody))
