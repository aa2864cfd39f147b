"""The page on distillation names every building block and who uses it, and its code runs."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from fedistill.config_rules import RECIPES as RECIPE_NAMES
from fedistill.data import load_table, split_table
from fedistill.distill.recipes import load_recipe
from fedistill.distill.students import predict_probabilities
from fedistill.distill.training import Learning, distil
from tests.distill.test_training import ensemble_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "distillation.md").read_text()
BLOCKS = [
    ROOT / "fedistill" / "distill" / f"{name}.py"
    for name in (
        "losses",
        "feature_losses",
        "relation_losses",
        "loss_mix",
        "schedules",
        "curriculum",
        "noise_aware",
        "augmentation",
        "averaging",
        "mean_teacher",
        "ensembles",
    )
]

RECIPES = (
    "recipes",
    "recipe_stages",
    "material",
    "guide",
    "layers",
    "terms",
    "batches",
    "engine",
)
"""Modules that only a recipe uses."""


def public_names(path: Path) -> set[str]:
    """Public functions and classes of a module."""
    body = ast.parse(path.read_text()).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {name for name in defined if not name.startswith("_")}


def definitions() -> dict[str, set[str]]:
    """By public name of a block, all names that its definition mentions."""
    found: dict[str, set[str]] = {}
    for path in BLOCKS:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
                found[node.name] = names
    return found


def with_what_they_use(names: set[str]) -> set[str]:
    """The blocks among the names, and the blocks that these are made of."""
    defined = definitions()
    reached, todo = set[str](), [name for name in names if name in defined]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [each for each in defined[name] if each in defined]
    return {name for name in reached if not name.startswith("_")}


def names_used_by(paths: Iterable[Path]) -> set[str]:
    """What these modules take from the building blocks."""
    blocks = {f"fedistill.distill.{path.stem}" for path in BLOCKS}
    used: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in blocks:
                used |= {alias.name for alias in node.names}
            if isinstance(node, ast.Import):  # whole modules would hide what is used
                assert not blocks & {alias.name for alias in node.names}, path
    return with_what_they_use(used)


def table_rows() -> dict[str, str]:
    """Who uses each name, as the page says."""
    rows = re.findall(r"^\| (`[^|]*`) \|.*\| (every run|recipes|library) \|$", PAGE, re.M)
    return {name: user for names, user in rows for name in re.findall(r"`(\w+)`", names)}


def test_every_building_block_is_on_the_page() -> None:
    blocks = {name for path in BLOCKS for name in public_names(path)}
    assert set(table_rows()) - {"FOUR_TERMS"} == blocks


def test_the_page_says_what_a_run_uses_and_nothing_more() -> None:
    others = set((ROOT / "fedistill").rglob("*.py")) - set(BLOCKS)
    of_recipes = {ROOT / "fedistill" / "distill" / f"{name}.py" for name in RECIPES}
    every_run = names_used_by(others - of_recipes)
    recipes = names_used_by(of_recipes) - every_run
    assert every_run  # the scan finds what it looks for
    assert recipes
    rows = table_rows()
    assert {name for name, user in rows.items() if user == "every run"} == every_run
    assert {name for name, user in rows.items() if user == "recipes"} == recipes


def test_the_recipe_on_the_page_is_one_and_trains_a_student(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    table = load_table("heart_disease")
    proxy = split_table(table, proxy_fraction=0.2, test_fraction=0.15).proxy
    ensemble = ensemble_of(proxy, 2)
    student = distil(proxy, ensemble, Learning(recipe=str(path)), seed=0)
    said = predict_probabilities(student, proxy.rows).argmax(axis=1)
    assert (said == ensemble.target.probabilities.argmax(axis=1)).mean() > 0.9


def test_the_page_describes_every_preset_as_the_preset_does() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]*) \|$", PAGE, re.M))
    for name in RECIPE_NAMES[1:]:
        assert name in rows
        if name != "four-term":
            assert load_recipe(name).about.rstrip(".").lower() == rows[name].lower()


def test_the_snippet_trains_a_student_that_agrees_with_its_teacher(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    with torch.random.fork_rng(devices=[]):
        exec(compile(snippet, "distillation.md", "exec"), {})  # noqa: S102
    first, last, agreement = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out))
    assert last < 0.6 * first
    assert agreement > 0.9
