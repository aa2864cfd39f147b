import pytest

from fedistill.cli.application import load_application
from fedistill.errors import BadInput, ConfigError


def test_overrides_change_the_apps_run_config(app):
    application = load_application(app, ["epsilon=2 partition='iid'", 'seed=7 student="mlp"'])
    assert application.overrides == {
        "epsilon": 2,
        "partition": "iid",
        "seed": 7,
        "student": "mlp",
    }
    assert (application.config.epsilon, application.config.seed) == (2.0, 7)


def test_quoted_values_may_hold_spaces_and_bare_words_are_strings(app):
    application = load_application(app, ['dataset="/two words/rows.csv" quantize=none'])
    assert application.config.dataset == "/two words/rows.csv"
    assert application.config.quantize == "none"


def test_overrides_may_come_from_a_file(app, tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text("epsilon = 0.5\n")
    assert load_application(app, [str(path)]).config.epsilon == 0.5


def test_what_is_no_pair_is_refused(app):
    with pytest.raises(ConfigError, match="'epsilon' is not a key=value pair"):
        load_application(app, ["epsilon 1.0"])


def test_spaces_around_the_equals_sign_are_refused_not_ignored(app):
    with pytest.raises(ConfigError, match="is not a key=value pair"):
        load_application(app, ["epsilon = 1.0"])


def test_a_key_that_the_app_leaves_out_cannot_be_overridden(app):
    pyproject = app / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("seed = 0\n", ""))
    with pytest.raises(
        ConfigError, match=r"key 'seed' is missing from \[tool\.flwr\.app\.config\]"
    ):
        load_application(app, ["seed=1"])


def test_an_unknown_key_in_the_app_itself_is_refused(app):
    with (app / "pyproject.toml").open("a") as file:
        file.write("\nepslon = 1.0\n")
    with pytest.raises(ConfigError, match="unknown key 'epslon': did you mean 'epsilon'"):
        load_application(app, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[tool.flwr.app.config]", "[tool.other]"), r"has no table \[tool.flwr.app.config\]"),
        (("publisher", "publisher2"), 'is not a Flower app: Property "publisher" missing'),
        (("throwaway:server", "nowhere:server"), "is not a Flower app: .*nowhere"),
        (('name = "', "name = "), "is not a TOML file"),
    ],
)
def test_what_flower_would_refuse_is_refused_before_it_starts(app, change, message):
    pyproject = app / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(*change))
    with pytest.raises(BadInput, match=message):
        load_application(app, [])


def test_a_directory_without_pyproject_is_no_app(tmp_path):
    with pytest.raises(BadInput, match="does not exist: name a Flower app directory"):
        load_application(tmp_path, [])
