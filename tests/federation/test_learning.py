"""What the run config says of the student, checked before a site is asked."""

import pytest

from fedistill.config import RunConfig
from fedistill.errors import ConfigError
from fedistill.federation.learning import learning_of
from fedistill.federation.run_folder import RunFolder
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


def test_a_changed_recipe_is_another_config_and_a_moved_run_folder_is_not(tmp_path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("a")
    config = RunConfig.from_flat({"recipe": str(mine)})
    before = config.work_sha256()
    asked_of_sites = config.sha256()
    assert config.model_copy(update={"output_dir": "/elsewhere"}).work_sha256() == before
    mine.write_text("b")
    assert config.work_sha256() != before
    # Sites have no such file, and compare what they were asked alone.
    assert config.sha256() == asked_of_sites
    mine.unlink()
    with pytest.raises(ConfigError, match=r"recipe='.*mine.toml' cannot be read"):
        config.work_sha256()


def test_a_run_with_another_recipe_does_not_go_on_in_its_folder(tmp_path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("a")
    config = RunConfig.from_flat({"recipe": str(mine)})
    folder = RunFolder(tmp_path / "run")
    assert not folder.claim(config)
    assert folder.claim(config)
    mine.write_text("b")
    with pytest.raises(ConfigError, match="holds an unfinished run of another config"):
        folder.claim(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "curiculum"}, "recipe='curiculum' must be 'auto', 'curriculum', 'four-term'"),
        ({"recipe": "mine.toml"}, "recipe='mine.toml' must be an absolute path: write"),
        ({"track": "mlflow"}, "track='mlflow' logs the stages of a recipe, and recipe='auto' has"),
        ({"public-teacher": "a:b"}, "public-teacher='a:b' is for recipes that compare with it"),
        ({"train-processes": 2}, "train-processes=2 is for recipes, and recipe='auto' trains in"),
        ({"public-teacher": "/a/b.pt"}, "public-teacher='/a/b.pt' must end in '.onnx' or"),
        (
            {"recipe": "curriculum", "label-propagation": True},
            "label-propagation=true is of recipe='auto', and recipe='curriculum' says itself",
        ),
        (
            {"recipe": "curriculum", "student-epochs": 3},
            "student-epochs=3 is of recipe='auto', and recipe='curriculum' has epochs in its",
        ),
    ],
)
def test_keys_that_a_recipe_would_pass_over_are_refused(values, message) -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.from_flat(values)
    assert message in str(refused.value)


def test_a_recipe_that_cannot_be_followed_is_refused_before_a_run(tmp_path) -> None:
    with pytest.raises(ConfigError, match="recipe='four-term': divergence compares with a teacher"):
        prepare(RunConfig.from_flat({"dataset": "heart_disease", "recipe": "four-term"}))
    (tmp_path / "mine.toml").write_text("[[stages]]\nepoch = 3")
    mine = {"dataset": "heart_disease", "recipe": str(tmp_path / "mine.toml")}
    with pytest.raises(ConfigError, match="unknown key 'epoch': did you mean 'epochs'"):
        prepare(RunConfig.from_flat(mine))
    prepare(RunConfig.from_flat({"dataset": "heart_disease", "recipe": "curriculum"}))
