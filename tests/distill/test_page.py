"""The page on distillation names every building block and who uses it, and its code runs."""

import ast
import re
from pathlib import Path

import pytest
import torch

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
        "mean_teacher",
        "ensembles",
    )
]


def public_names(path: Path) -> set[str]:
    """Public functions and classes of a module."""
    body = ast.parse(path.read_text()).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {name for name in defined if not name.startswith("_")}


def names_that_runs_use() -> set[str]:
    """What the rest of the package takes from the building blocks."""
    blocks = {f"fedistill.distill.{path.stem}" for path in BLOCKS}
    used: set[str] = set()
    for path in (ROOT / "fedistill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if path not in BLOCKS and isinstance(node, ast.ImportFrom) and node.module in blocks:
                used |= {alias.name for alias in node.names}
            if isinstance(node, ast.Import):  # whole modules would hide what is used
                assert not blocks & {alias.name for alias in node.names}, path
    return used


def table_rows() -> dict[str, str]:
    """Who uses each name, as the page says."""
    rows = re.findall(r"^\| (`[^|]*`) \|.*\| (every run|library) \|$", PAGE, re.M)
    return {name: user for names, user in rows for name in re.findall(r"`(\w+)`", names)}


def test_every_building_block_is_on_the_page() -> None:
    blocks = {name for path in BLOCKS for name in public_names(path)}
    assert set(table_rows()) - {"FOUR_TERMS"} == blocks


def test_the_page_says_what_a_run_uses_and_nothing_more() -> None:
    used = names_that_runs_use()
    assert used  # the scan finds what it looks for
    assert {name for name, user in table_rows().items() if user == "every run"} == used


def test_the_snippet_trains_a_student_that_agrees_with_its_teacher(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    with torch.random.fork_rng(devices=[]):
        exec(compile(snippet, "distillation.md", "exec"), {})  # noqa: S102
    first, last, agreement = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out))
    assert last < 0.6 * first
    assert agreement > 0.9
