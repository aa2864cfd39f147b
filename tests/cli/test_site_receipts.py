"""What `fedistill site receipts` and `ledger verify` say of a site's receipts."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent

from fedistill.privacy.countersign import Countersigned, append_countersigned, countersigned_path
from fedistill.privacy.ledger_key import create_key, load_key
from fedistill.privacy.receipts import sign_receipt
from fedistill.site import open_ledger
from tests.cli.test_site_agent import fedistill
from tests.deployed import Site, write_federation
from tests.privacy.test_receipts import receipt

RUN = "14192792538490014512"  # as long as Flower's longest


def receipts_of(site: Site) -> Path:
    return site.folder / "receipts.jsonl"


@pytest.fixture
def site() -> Iterator[Site]:
    """Two answers, the first of which the server countersigned."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        folder = Path(name)
        site = write_federation(folder)[0]["bank_a"]
        policy, key = site.policy(), site.folder / "identity.key"
        for number, question in enumerate(("ab" * 32, "cd" * 32)):
            with open_ledger(policy, site.ledger, create=False, key=key) as ledger:
                ledger.charge(question, {}, ZCDpEvent(0.01), budget_epsilon=4.0, delta=policy.delta)
                charges, head = ledger.head
            said = sign_receipt(
                receipts_of(site),
                receipt(run=RUN, question=question, population=policy.population),
                load_key(key),
                charges=charges,
                head=head,
            )
            if number == 0:
                signed = Countersigned.sign(load_key(folder / "server" / "server.key"), said)
                append_countersigned(countersigned_path(receipts_of(site)), [signed])
        yield site


def test_every_release_stands_in_a_line_that_80_columns_hold(site: Site) -> None:
    shown = fedistill("site", "receipts", "--config", site.config)
    assert shown.returncode == 0, shown.stderr
    first, second = (line for line in shown.stdout.splitlines() if RUN in line)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert first.split()[0] == "1"
    assert first.split()[-1] == "both"
    assert second.split()[-1] == "site"
    assert "12,000" in first
    assert "2 receipts valid, 1 of them countersigned by the server" in " ".join(
        shown.stdout.split()
    )


def test_programs_get_all_fields(site: Site) -> None:
    shown = fedistill("site", "receipts", "--config", site.config, "--format", "json")
    found = json.loads(shown.stdout)
    assert found["valid"]
    assert [each["countersigned"] for each in found["receipts"]] == [True, False]
    assert found["receipts"][0]["epsilon"] == 0.5
    assert found["receipts"][1]["signed"]["number"] == 2


def test_a_site_that_answered_nothing_has_no_receipts(site: Site) -> None:
    bank_b = site.folder.with_name("bank_b")
    shown = fedistill("site", "receipts", "--config", bank_b / "agent.toml")
    assert shown.returncode == 0, shown.stderr
    assert "0 receipts valid" in shown.stdout


@pytest.mark.parametrize("command", ["receipts", "verify"])
def test_an_edited_receipt_is_named_and_the_exit_code_says_so(site: Site, command: str) -> None:
    path = receipts_of(site)
    path.write_text(path.read_text().replace('"epsilon":0.5', '"epsilon":0.25', 1))
    asked = {
        "receipts": ("site", "receipts", "--config", site.config),
        "verify": ("ledger", "verify", site.ledger),
    }
    shown = fedistill(*asked[command])
    assert shown.returncode == 1
    assert "receipt 1 was edited" in shown.stdout


def test_verify_takes_the_key_that_the_policy_beside_the_ledger_pins(site: Site) -> None:
    assert fedistill("ledger", "verify", site.ledger).returncode == 0
    create_key(site.folder.with_name("other.key"))
    other = load_key(site.folder.with_name("other.key")).public
    policy = site.policy().model_copy(update={"server_key": other})
    policy.save(site.folder / "policy.toml")
    shown = fedistill("ledger", "verify", site.ledger)
    assert shown.returncode == 1
    assert f"the policy pins server-key {other[:12]}" in shown.stdout


@pytest.mark.parametrize("option", ["--receipts", "--server-copy"])
def test_a_file_that_is_not_there_is_bad_input(site: Site, option: str) -> None:
    shown = fedistill("ledger", "verify", site.ledger, option, site.folder / "nowhere.jsonl")
    assert shown.returncode == 2
    assert f"{option}=" in shown.stderr
    assert "is no file: correct the path" in " ".join(shown.stderr.split())
