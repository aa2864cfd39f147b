import pytest

from benchmarks.baselines.comparison import (
    BEGIN,
    END,
    Cell,
    quality_table,
    spread,
    verdict,
    write_between_markers,
)
from benchmarks.baselines.rows import Result, Row


def results(*scores, target=None):
    return tuple(
        Result(
            row=Row(dataset="thyroid", method="any", epsilon=1.0, seed=seed, setting=0),
            auc=score,
            target=target,
        )
        for seed, score in enumerate(scores)
    )


def cell(ours=(0.93, 0.91), raw=(0.8, 0.8), features=(0.91, 0.89), target=0.921, **changes):
    return Cell(
        **{
            "dataset": "thyroid",
            "epsilon": 1.0,
            "central": 0.99,
            "local": results(0.8, 0.8),
            "raw": results(*raw),
            "features": results(*features),
            "ours": results(*ours, target=target),
        }
        | changes
    )


def test_differences_are_paired_by_seed():
    assert "+0.0200 ± 0.0000" in quality_table([cell()])


def test_the_spread_is_the_standard_error_of_the_mean():
    assert spread([0.1, 0.2, 0.3, 0.4]) == "0.2500 ± 0.0645"
    assert spread([0.1]) == "0.1000"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "- met: thyroid at epsilon 1"),
        ({"ours": (0.92, 0.91)}, "- not met: thyroid at epsilon 1"),
        ({}, "- not measured: adult at epsilon 1"),
        ({}, "- met: never below"),
        ({"raw": (0.99, 0.99)}, "- not met: never below"),
        ({}, "- met: on par"),
        ({"features": (0.93, 0.92)}, "- met: on par"),
        ({"features": (0.94, 0.93)}, "- not met: on par"),
        ({}, "- met: the shipped file loses"),
        ({"target": 0.925}, "- not met: the shipped file loses"),
    ],
)
def test_the_verdict_says_met_or_not(change, line):
    assert any(found.startswith(line) for found in verdict([cell(**change)]).splitlines())


def test_the_verdict_names_every_cell_that_fails():
    failing = cell(raw=(0.99, 0.99), dataset="adult", epsilon=2.0)
    text = verdict([cell(), failing])
    assert "1 of 2; fails adult at 2: -0.0700" in text


def test_the_text_between_markers_is_replaced(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers(path, "new")
    write_between_markers(path, "newer")
    assert path.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_file_without_markers_is_left_alone(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="must hold"):
        write_between_markers(path, "new")
    assert path.read_text() == text
