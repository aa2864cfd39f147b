import io
import json
from pathlib import Path

from rich.console import Console

from fedistill.cli.progress import Bars, Failed, Finished, Lines, ProgressFile, Step, open_display


def append(path, **line):
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_only_new_and_complete_lines_are_read(tmp_path):
    path = tmp_path / "progress.jsonl"
    lines = ProgressFile(path)
    assert list(lines.read()) == []
    append(path, phase="labels", done=1, total=3, message="bank_a", time=0.0)
    assert list(lines.read()) == [Step(phase="labels", done=1, total=3, message="bank_a")]
    with path.open("a") as file:
        file.write('{"phase": "labels", "done"')
    assert list(lines.read()) == []
    with path.open("a") as file:
        file.write(': 2, "total": 3}\n')
    assert list(lines.read()) == [Step(phase="labels", done=2, total=3, message="")]


def test_the_last_line_tells_how_the_workflow_ended(tmp_path):
    path = tmp_path / "progress.jsonl"
    append(path, phase="finished", run_dir="/runs/1")
    append(path, phase="failed", reason="too few sites", exit_code=1)
    append(path, phase="failed", reason="no such column", exit_code=2, run_dir="/runs/2")
    assert list(ProgressFile(path).read()) == [
        Finished(run_dir=Path("/runs/1")),
        Failed(reason="too few sites", exit_code=1, run_dir=None),
        Failed(reason="no such column", exit_code=2, run_dir=Path("/runs/2")),
    ]


def test_plain_lines_skip_most_steps_of_a_phase():
    console = Console(file=io.StringIO(), width=80)
    with open_display(console, plain=True) as display:
        assert isinstance(display, Lines)
        for done in range(101):
            display.show(Step(phase="student", done=done, total=100, message="[loss]"))
    printed = console.file.getvalue().split("\n")
    assert printed == ["student 0/100 [loss]", "student 100/100 [loss]", ""]


def test_a_terminal_gets_a_bar_a_phase():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with open_display(console, plain=False) as display:
        assert isinstance(display, Bars)
        display.show(Step(phase="labels", done=2, total=3, message="bank_b"))
        display.show(Step(phase="student", done=5, total=10, message=""))
        display.finish()
    printed = console.file.getvalue()
    assert "labels" in printed
    assert "3/3" in printed
    assert "10/10" in printed
