"""`fedistill plan` as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.small import write_table

Command = Callable[..., CompletedProcess[str]]
QUICK = ("--rows-at-least", 200, "--seconds", 0, "--mechanism", "votes")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "public.npz", num_rows=400)


def test_a_plan_names_a_mechanism_and_draws_its_curve(
    fedistill: Command, table: Path, tmp_path: Path
) -> None:
    page = tmp_path / "plan.html"
    table = write_table(table, num_rows=1_500)
    options = ("--rows-at-least", 400, "--seconds", 0, "--mechanism", "dp-probe", "--epsilon", 8)
    result = fedistill("plan", "--proxy", table, "--label-column", "y", *options, "--plot", page)
    assert result.returncode == 0, result.stderr
    assert "dp-probe has a mean AUC of" in result.stdout
    assert "<svg" in page.read_text()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_json_is_all_that_stdout_holds(fedistill: Command, table: Path) -> None:
    result = fedistill("plan", "--proxy", table, *QUICK, "--format", "json")
    found = json.loads(result.stdout)
    assert {each["mechanism"] for each in found["mechanisms"]} == {"votes"}
    assert [each["epsilon"] for each in found["mechanisms"]] == [0.25, 0.5, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--epsilon", "-1"), "epsilon=-1.0 must be above 0"),
        (("--classes", 1), "classes=1 must be from 2"),
        (("--classes", 3, "--label-column", "y"), "classes=3 must be 2"),
        (("--mechanism", "vote"), "did you mean 'votes'?"),
        (("--mechanism", "sharded", "--teacher", "bosting"), "did you mean 'boosting'?"),
        (("--label-column", "z"), "label-column='z'"),
        (("--plot", "/proc/plan.html"), "cannot be written"),
    ],
)
def test_bad_input_ends_with_code_2(
    options: tuple[object, ...], said: str, fedistill: Command, table: Path
) -> None:
    result = fedistill("plan", "--proxy", table, *QUICK, *options)
    assert (result.returncode, said in result.stderr) == (2, True), result.stderr


def test_a_missing_file_ends_with_code_2(fedistill: Command, tmp_path: Path) -> None:
    result = fedistill("plan", "--proxy", tmp_path / "none.csv", *QUICK)
    assert result.returncode == 2
    assert "none.csv" in result.stderr
