"""The tutorial, block by block as it stands there, in a folder that has the repository's apps."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import REPOSITORY, Flower, own_flower

pytestmark = pytest.mark.e2e

PAGE = REPOSITORY / "docs" / "tutorial.md"
REFUSED = "runs/refused"
DIFFERS = ("runs/first", "runs/paid", "runs/again")
"""Blocks that name one of these print noised figures or the time."""


@dataclass(frozen=True)
class Step:
    """A block that the reader runs, and the lines that the page shows of its output."""

    language: str
    text: str
    shown: tuple[str, ...]

    @property
    def is_quick(self) -> bool:
        """Whether it neither runs a federation nor reads what one left."""
        return not re.search(r"\bruns\b|\bledgers\b", self.text)

    @property
    def prints_what_is_shown(self) -> bool:
        return not any(name in self.text for name in DIFFERS)


def steps() -> list[Step]:
    """Blocks in the order of the page; one in `text` is the output of the block before it."""
    found: list[Step] = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        if language in ("sh", "python"):
            found.append(Step(language, text, ()))
        else:
            found[-1] = Step(found[-1].language, found[-1].text, tuple(text.splitlines()))
    return found


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the page."""

    flower: Flower
    folder: Path

    def follow(self, step: Step) -> str:
        """Run a block as it stands: what it printed. It fails only where the page says so."""
        shell = ["bash", "-eu", "-o", "pipefail", "-c"]
        done = subprocess.run(
            [*(shell if step.language == "sh" else [sys.executable, "-c"]), step.text],
            cwd=self.folder,
            env=self.flower.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == (2 if REFUSED in step.text else 0), step.text + done.stderr
        printed = done.stdout + done.stderr
        if step.prints_what_is_shown:
            lines = {squeezed(line) for line in printed.splitlines()}
            for line in step.shown:
                pattern = re.escape(squeezed(line)).replace(r"\.\.\.", ".*")
                assert any(re.fullmatch(pattern, each) for each in lines), f"{line}\n{printed}"
        return printed


def squeezed(line: str) -> str:
    return " ".join(line.split())


@pytest.fixture
def reader() -> Iterator[Reader]:
    with own_flower() as flower:
        folder = flower.folder / "here"
        shutil.copytree(REPOSITORY / "simulations", folder / "simulations")
        yield Reader(flower, folder)


def test_what_needs_no_run_prints_what_the_page_shows(reader: Reader) -> None:
    quick = [step for step in steps() if step.is_quick]
    assert sum("--dry-run" in step.text for step in quick) == 3
    for step in quick:
        reader.follow(step)


@pytest.mark.slow
def test_every_block_works_in_the_order_of_the_page(reader: Reader) -> None:
    printed = {step.text: reader.follow(step) for step in steps()}
    assert reader.folder.exists()
    assert sorted(path.name for path in reader.folder.iterdir()) == ["simulations"]

    def of(mark: str) -> str:
        (text,) = (text for text in printed if mark in text)
        return printed[text]

    for site in ("Cleveland", "Hungary", "Switzerland", "VA Long Beach"):
        assert re.search(rf"{site} +0\.700 +0\.700 +0\.300", of("runs/paid"))
        assert re.search(rf"{site} +0\.000 +0\.700 +0\.300", of("runs/again"))
    assert "Who gains from joining" in of("output-dir=$PWD/runs/first")
    assert "dp-probe" in of("ledger show runs/first")
    assert "valid, and complete" in of("ledger verify")
    classes = re.findall(r"^(.*): (0\.\d\d|1\.00)$", of("onnxruntime"), re.M)
    assert [name for name, _ in classes] == ["disease", "no disease"]
    assert sum(float(probability) for _, probability in classes) == pytest.approx(1, abs=0.011)
