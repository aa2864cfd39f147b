"""What a recipe file may hold, and how it is refused."""

from pathlib import Path

import pytest

from fedistill.config_rules import RECIPES
from fedistill.distill import recipes
from fedistill.distill.recipes import load_recipe
from fedistill.errors import ConfigError

STAGE = '[[stages]]\nname = "a"\nepochs = 3\n'
PLAIN = STAGE + "losses = { log-odds = 1.0 }\n"


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_every_preset_is_a_recipe_and_every_preset_file_is_a_name() -> None:
    folder = Path(recipes.__file__).parent / "presets"
    assert {path.stem for path in folder.glob("*.toml")} == set(RECIPES) - {"auto"}
    for name in RECIPES[1:]:
        plan = load_recipe(name)
        assert plan.about.endswith(".")
        assert plan.epochs == sum(stage.epochs for stage in plan.stages)


def test_only_the_preset_for_a_public_teacher_asks_for_one() -> None:
    white = {name for name in RECIPES[1:] if load_recipe(name).white_box}
    assert white == {"four-term"}
    assert load_recipe("four-term").inside == ("features", "attention")


def test_a_preset_copied_to_a_file_is_the_same_recipe(written) -> None:
    folder = Path(recipes.__file__).parent / "presets"
    for name in RECIPES[1:]:
        assert load_recipe(written((folder / f"{name}.toml").read_text())) == load_recipe(name)


def test_temperature_and_alpha_are_schedules_by_epoch(written) -> None:
    text = STAGE.replace("3", "6") + (
        "losses = { labels = 1.0 }\n"
        'temperature = { kind = "falling", first = 4.0, by = 1.0, every = 2 }\n'
        'alpha = { kind = "ramp", hard-until = 2, mixed-until = 4 }\n'
    )
    (stage,) = load_recipe(written("sure-from = 0.9\n" + text)).stages
    assert [stage.temperatures.at(epoch) for epoch in range(6)] == [4, 4, 3, 3, 2, 2]
    assert [stage.alphas.at(epoch) for epoch in range(6)] == [0, 0, 0.3, 0.3, 0.7, 0.7]
    rising = '{ kind = "rising", first = 5, last = 6, by = 0.5, warm-up = 1 }'
    (stage,) = load_recipe(written(PLAIN + f"temperature = {rising}")).stages
    assert [stage.temperatures.at(epoch) for epoch in range(5)] == [5, 5, 5.5, 6, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            STAGE + "losses = { cross-entropi = 1 }",
            "stages[0].losses: unknown key 'cross-entropi': did you mean 'cross-entropy'?",
        ),
        (PLAIN + "epoch = 3", "stages[0]: unknown key 'epoch': did you mean 'epochs'?"),
        ("bach = 3\n" + PLAIN, "unknown key 'bach': did you mean 'batch'?"),
        (PLAIN + "learning_rate = 1", "unknown key 'learning_rate': did you mean 'learning-rate'?"),
        (STAGE, "stages[0].losses must be given: add it"),
        (PLAIN.replace("3", "0"), "stages[0].epochs=0 must be at least 1: raise stages[0].epochs"),
        (PLAIN.replace("3", "3.5"), "stages[0].epochs=3.5 must be a whole number"),
        (PLAIN.replace("1.0", "-1.0"), "stages[0].losses.log-odds=-1.0 must be at least 0"),
        (PLAIN.replace("1.0", "inf"), "stages[0].losses.log-odds=inf must be a finite number"),
        (STAGE + "losses = {}", "stages[0]: a mix of losses must have a weight above 0"),
        ("stages = []", "stages=[]: List should have at least 1 item"),
        ("", "stages must be given: add it"),
        (PLAIN + "temperature = 0", "stages[0].temperature=0 must be greater than 0"),
        (
            PLAIN + 'temperature = { kind = "risin" }',
            "stages[0].temperature must be a number, or a table with kind='rising', 'falling' or "
            "'search': choose one of these",
        ),
        (
            PLAIN + 'temperature = { kind = "rising", first = 9, last = 8 }',
            "stages[0]: first=9.0 must be above 0 and at most last=8.0: lower it",
        ),
        (
            PLAIN + 'alpha = { kind = "ramp", hard-until = 4, mixed-until = 4 }',
            "stages[0]: hard_until=4 must be at least 1 and below mixed_until=4: lower it",
        ),
        (PLAIN + 'schedule = "line"', "stages[0].schedule='line' must be 'one-cycle', 'cosine'"),
        (PLAIN + "patience = 2", "validation=0 must be above 0 where stages[0] has patience"),
        (
            PLAIN + 'temperature = { kind = "search" }',
            "validation=0 must be above 0 where stages[0] has patience or searches",
        ),
        (
            STAGE + "losses = { labels = 1.0 }",
            "labels=1 must be 0, as public rows carry no labels: leave it out, or set sure-from",
        ),
        (
            STAGE + "losses = { divergence = 1.0 }\nmixup = 0.2",
            "mixup=0.2 and cutmix=0 must be 0 beside divergence, whose teacher saw no mixed row",
        ),
        (PLAIN + "mixup = 0.2\ncutmix = 1", "mixup=0.2 must be 0 with cutmix=1: a stage mixes in"),
        (
            "batch = 1024\n" + STAGE + "losses = { angles = 1.0 }",
            "batch=1024 must be at most 512 where stages[0] compares angles",
        ),
        ("layers = { deep = 3 }\n" + PLAIN, "layers.deep=3"),
        ("stages", "must be TOML"),
        ("[[stages]]\nname = 3\nepochs = 1\nlosses = { log-odds = 1 }", "stages[0].name=3 must be"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_bound(written, text, message) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as refused:
        load_recipe(path)
    assert str(refused.value).startswith(f"recipe={path!r}")
    assert message in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml' cannot be read \(No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="must be TOML"):
        load_recipe(str(tmp_path / "bytes.toml"))
