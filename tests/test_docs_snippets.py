"""Python on the pages runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedistill.compress.export import describe, export_student, write_manifest
from fedistill.data import Column, ProxySet, code_rows, load_table, numbers, split_table
from fedistill.distill.network_students import make_student

DOCS = Path(__file__).parents[1] / "docs"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


def test_python_is_only_where_it_is_run() -> None:
    pages = [str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md")]
    assert sorted(page for page in pages if python_blocks(page)) == [
        "distillation.md",  # run by tests/distill/test_distillation_page.py
        "images-and-text.md",  # run by tests/test_docs_commands.py before the page's commands
        "results-folder.md",
        "tutorial.md",
        "write-a-mechanism.md",  # run by tests/mechanisms/test_plug_in.py
    ]


def test_the_snippet_for_the_student_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    proxy = ProxySet(schema=numbers("abc"), rows=rows)
    student = make_student("mlp", proxy, num_classes=2)
    path = tmp_path / "student.onnx"
    export_student(student, path, schema=proxy.schema, classes=["no", "yes"])
    monkeypatch.chdir(tmp_path)
    (snippet,) = python_blocks("results-folder.md")
    exec(compile(snippet, "results-folder.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "(2, 2)\n"


def test_the_tutorial_scores_a_patient_by_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the student says of the patient coded by hand, the snippet says."""
    table = load_table("heart_disease")
    proxy = split_table(table, proxy_fraction=0.2, test_fraction=0.15).proxy
    student = make_student("mlp", proxy, num_classes=2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter *= 3  # untrained students are undecided about everybody
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    schema, classes = proxy.schema, ["disease", "no disease"]
    export_student(student, run / "student.onnx", schema=schema, classes=classes)
    description = describe(student, schema=schema, classes=classes)
    write_manifest(run / "manifest.json", description, [run / "student.onnx"])
    monkeypatch.chdir(tmp_path)
    (snippet,) = (block for block in python_blocks("tutorial.md") if "onnxruntime" in block)
    scope: dict[str, Any] = {}
    exec(compile(snippet, "tutorial.md", "exec"), scope)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    patient = {name: [value] for name, value in scope["patient"].items()}
    columns = {
        column.name: Column.of(np.array(patient.get(column.name, [""]))) for column in schema
    }
    coded, misfit = code_rows(columns, schema, np.arange(1))
    assert misfit.tolist() == [""]
    with torch.no_grad():
        (expected,) = student(torch.from_numpy(coded)).softmax(dim=1).tolist()
    assert np.isfinite(coded).sum() == len(patient)
    assert [line.split(": ")[0] for line in printed] == classes
    assert [float(line.split(": ")[1]) for line in printed] == pytest.approx(expected, abs=0.006)
