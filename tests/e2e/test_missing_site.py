"""A site that cannot answer: left out with a warning, or the end of the run; never a private word.

The other sites of a real federation would not notice; the server learns a public class of failure.
"""

import json
import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import tomli_w

from tests.e2e.conftest import RESULTS, Flower

pytestmark = pytest.mark.e2e

WARNING = (
    "bank_b refused: its ledger cannot vouch for the budget in phase labels: "
    "the round goes on without it"
)
PRIVATE = "customer-4711"


def test_a_run_goes_on_without_a_site_whose_ledger_is_damaged(flower: Flower, quick: str) -> None:
    run = flower.folder / "run"
    run.mkdir()
    (run / "bank_b.ledger.db").write_text(f"no database, but {PRIVATE}")
    result = flower.simulate(f'{quick} output-dir="{run}"')
    assert result.returncode == 0, result.stderr
    assert {path.name for path in run.iterdir()} >= RESULTS
    assert WARNING in in_one_line(result.stdout)
    assert WARNING in (run / "report.html").read_text()
    assert "Two sites taught one" in in_one_line(result.stdout)
    opened = json.loads((run / "checkpoints" / "round-1.json").read_text())
    assert opened["sites"] == ["bank_a", "bank_c"]
    keeps_its_words(run, "bank_b", result)


@pytest.mark.slow
def test_too_few_sites_end_the_run_with_the_reason(flower: Flower, quick: str) -> None:
    run = flower.folder / "run"
    (run / "sites" / "bank_b").mkdir(parents=True)
    policy = tomli_w.dumps({"site": "bank_b", "rows-at-least": PRIVATE})
    (run / "sites" / "bank_b" / "policy.toml").write_text(policy)
    result = flower.simulate(f'{quick} min-sites=3 output-dir="{run}"')
    assert result.returncode == 1
    assert result.stderr == (
        "fedistill: 2 of 3 sites answered, min-sites=3: bank_b refused: its policy forbids the "
        "question in phase keys: the round goes on without it "
        f"(log: {run / 'flower.log'})\n"
    )
    assert not (run / "summary.json").exists()
    keeps_its_words(run, "bank_b", result)


def keeps_its_words(run: Path, site: str, result: CompletedProcess[str]) -> None:
    """What the site's own log says is nowhere that a server's operator looks."""
    private = run / "sites" / site / "site.log"
    (said,) = re.findall(r"ERROR \w+: (.+)", private.read_text())
    seen = [
        result.stdout,
        result.stderr,
        *(
            path.read_text()
            for path in run.glob("*.*")
            if path.suffix in (".log", ".html", ".json")
        ),
    ]
    assert len(seen) >= 3
    for text in seen:
        assert said not in text
        assert PRIVATE not in text
        assert f"{site}.ledger.db" not in text


def in_one_line(text: str) -> str:
    return " ".join(text.split())
