"""Python on the pages runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedistill.compress.export import export_student
from fedistill.data import ProxySet, numbers
from fedistill.distill.encoding import TabularEncoding
from fedistill.distill.students import make_student

DOCS = Path(__file__).parents[1] / "docs"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


def test_python_is_only_where_it_is_run() -> None:
    pages = [str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md")]
    assert [page for page in pages if python_blocks(page)] == ["results-folder.md"]


def test_the_snippet_for_the_student_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    proxy = ProxySet(schema=numbers("abc"), rows=rows)
    student = make_student("mlp", TabularEncoding.fit(proxy), num_classes=2)
    path = tmp_path / "student.onnx"
    export_student(student, path, schema=proxy.schema, classes=["no", "yes"])
    monkeypatch.chdir(tmp_path)
    (snippet,) = python_blocks("results-folder.md")
    exec(compile(snippet, "results-folder.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "(2, 2)\n"
