"""What a site keeps of the server's signatures, and what a restored snapshot then meets."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedistill.errors import DataError, FedistillError, LedgerError, PolicyRefusal
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site, question_of
from fedistill.federation.up_front import prepare
from fedistill.labels import LabelQuestion
from fedistill.privacy.countersign import (
    Countersigned,
    Statement,
    countersigned_path,
    read_countersigned,
)
from fedistill.privacy.ledger_key import SiteKey, create_key, load_key
from fedistill.site import LocalAgent
from fedistill.site.receipting import keep_countersigned
from tests.small import make_config

RECEIPTS = "receipts.jsonl"
COUNTERSIGNED = "receipts.countersigned.jsonl"


@pytest.fixture
def server(tmp_path: Path) -> SiteKey:
    return new_key(tmp_path / "server.key")


@pytest.fixture
def agent(tmp_path: Path, server: SiteKey) -> LocalAgent:
    config = make_config(tmp_path, budget_epsilon=5.0)
    agent = open_site(config, "bank_a", run_folder(config, "1"), "1")
    agent.ledger_path = tmp_path / "site" / "bank_a.ledger.db"
    agent.receipts_path = tmp_path / "site" / RECEIPTS
    agent.policy = agent.policy.model_copy(update={"server_key": server.public})
    return agent


@pytest.fixture
def question(tmp_path: Path) -> LabelQuestion:
    config = make_config(tmp_path, budget_epsilon=5.0)
    return question_of(config, prepare(config))


@pytest.fixture
def asked(question: LabelQuestion, server: SiteKey) -> LabelQuestion:
    return replace(question, server_key=server.public)


def new_key(path: Path) -> SiteKey:
    create_key(path)
    return load_key(path)


def countersign(agent: LocalAgent, server: SiteKey) -> Countersigned:
    """As the server does with the statement of the last answer."""
    return Countersigned.sign(server, Statement.from_bytes(agent.statement))


def test_what_the_server_countersigned_is_kept_once(agent, asked, server) -> None:
    agent.labels(asked)
    item = countersign(agent, server)
    for _ in range(2):
        keep_countersigned(agent, [item.to_bytes()])
    assert read_countersigned(countersigned_path(agent.receipts_path)) == (item,)


def of_another_site(item: Countersigned, server: SiteKey, folder: Path) -> Countersigned:
    said = item.statement.model_copy(update={"public_key": new_key(folder / "other.key").public})
    return Countersigned.sign(server, said)


def edited(item: Countersigned, server: SiteKey, _: Path) -> Countersigned:
    return Countersigned.sign(server, item.statement.model_copy(update={"bytes": 1}))


def by_another_server(item: Countersigned, _: SiteKey, folder: Path) -> Countersigned:
    return Countersigned.sign(new_key(folder / "other.key"), item.statement)


@pytest.mark.parametrize(
    ("forge", "error", "message"),
    [
        (of_another_site, DataError, "must be this site's, signed by it and by the server"),
        (edited, DataError, "must be this site's, signed by it and by the server"),
        (by_another_server, PolicyRefusal, "server-key="),
    ],
)
def test_what_is_not_signed_by_both_is_not_kept(
    agent,
    asked,
    server,
    tmp_path: Path,
    forge: Callable[[Countersigned, SiteKey, Path], Countersigned],
    error: type[FedistillError],
    message: str,
) -> None:
    agent.labels(asked)
    good = countersign(agent, server)
    bad = forge(good, server, tmp_path)
    with pytest.raises(error, match=message):
        keep_countersigned(agent, [good.to_bytes(), bad.to_bytes()])
    assert not countersigned_path(agent.receipts_path).exists()


def test_a_site_that_pins_no_server_keeps_nothing(agent, question, server) -> None:
    unpinned = replace(agent, policy=agent.policy.model_copy(update={"server_key": ""}))
    unpinned.labels(question)
    with pytest.raises(PolicyRefusal, match="server-key=''"):
        keep_countersigned(unpinned, [countersign(unpinned, server).to_bytes()])


@pytest.mark.parametrize("kept", [RECEIPTS, COUNTERSIGNED])
def test_a_restored_snapshot_of_the_ledger_is_refused_and_charges_nothing(
    agent, asked, server, tmp_path: Path, kept: str
) -> None:
    """PRIVACY rule 12: ledger and anchor agree again, and either file of receipts remembers."""
    agent.labels(asked)
    folder, snapshot = agent.receipts_path.parent, tmp_path / "snapshot"
    shutil.copytree(folder, snapshot)
    agent.labels(replace(asked, epsilon=asked.epsilon / 2))
    keep_countersigned(agent, [countersign(agent, server).to_bytes()])
    remembered = (folder / kept).read_bytes()
    shutil.rmtree(folder)
    shutil.copytree(snapshot, folder)
    (folder / kept).write_bytes(remembered)
    before = agent.ledger_path.read_bytes()
    with pytest.raises(LedgerError, match=r"does not hold entry 2, which receipt 2 names"):
        agent.labels(asked)
    assert agent.ledger_path.read_bytes() == before


def test_a_ledger_that_lacks_what_comes_back_countersigned_is_named(
    agent, asked, server, tmp_path: Path
) -> None:
    """All at the site was restored: what the server sends remembers."""
    agent.labels(asked)
    folder, snapshot = agent.receipts_path.parent, tmp_path / "snapshot"
    shutil.copytree(folder, snapshot)
    agent.labels(replace(asked, epsilon=asked.epsilon / 2))
    item = countersign(agent, server)
    shutil.rmtree(folder)
    shutil.copytree(snapshot, folder)
    with pytest.raises(LedgerError, match="does not hold entry 2, which the server countersigned"):
        keep_countersigned(agent, [item.to_bytes()])
