"""The page about provisioning, block by block, against the real SuperLink, front and SuperNodes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from fedistill.data import ProxySet, infer_schema
from fedistill.data.coding import code_rows
from fedistill.data.loaders import load_table
from fedistill.site.policy import Policy
from tests.e2e.conftest import REPOSITORY
from tests.e2e.reader import Reader, blocks, reading

pytestmark = pytest.mark.e2e

PAGE = REPOSITORY / "docs" / "provisioning.md"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with reading(PAGE, tmp_path) as reader:
        yield reader


def write_loans(folder: Path) -> str:
    """`loans.csv`, the proxy set of its first rows, and the hash that a policy approves."""
    random = np.random.default_rng(0)
    income = random.normal(50, 10, 300)
    lines = [f"{x:.2f},{x / 3:.2f},{'yes' if x < 45 else 'no'}" for x in income]
    (folder / "loans.csv").write_text("\n".join(["income,debt,defaulted", *lines]) + "\n")
    table = load_table(str(folder / "loans.csv"), label_column="defaulted")
    index = np.arange(100)
    schema = infer_schema(table.columns, index)
    proxy = ProxySet(schema=schema, rows=code_rows(table.columns, schema, index)[0])
    proxy.save(folder / "proxy.bin")
    return proxy.sha256


def write_policy(reader: Reader, proxy_sha256: str) -> None:
    clauses = Policy.load(REPOSITORY / "clients" / "policy.toml").model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    clauses |= {"proxy-sha256": [proxy_sha256], "rows-at-least": 200}
    path = reader.folder / "bank_a" / "policy.toml"
    path.write_text(tomli_w.dumps(clauses))
    path.chmod(0o600)


def test_the_page_works_and_strangers_and_revoked_sites_stay_out(reader: Reader) -> None:
    (reader.folder / "project.toml").write_text(reader.own(blocks(PAGE, "toml")[0]))
    todo = iter(blocks(PAGE, "sh"))

    def page(first: str, code: int = 0) -> str:
        block = next(todo)
        assert block.startswith(first), block
        return reader.follow(block, code)

    page("fedistill provision init")
    page("fedistill site init")
    assert page("fedistill provision sign").count(" unknown ") == 3
    superlink, front = reader.start(next(todo)), reader.start(next(todo))
    reader.until(lambda: reader.answers(reader.superlink_port), "SuperLink")
    reader.until(lambda: reader.answers(reader.port), "front")
    page("fedistill provision register")
    assert "not compared yet: bank_b" in page("fedistill site join")
    page("fedistill site pin")
    write_policy(reader, write_loans(reader.folder))
    page("fedistill site preflight")
    assert "ok" in page("fedistill site preflight --dir bank_a --data")
    supernode = next(todo)
    assert supernode.startswith("flower-supernode")

    staying, leaving = reader.start_supernode("bank_a"), reader.start_supernode("bank_c")
    stranger = start_stranger(reader)
    assert reader.connects(staying)
    assert reader.connects(leaving)
    assert not reader.connects(stranger)
    the_open_port_leads_to_no_control_api(reader)

    assert "bank_c is revoked" in page("fedistill provision revoke")
    assert reader.online() == 1
    leaving.terminate()
    leaving.wait(timeout=15)
    again = reader.start_supernode("bank_c")
    page("fedistill site join")
    assert "bank_c" not in (reader.folder / "bank_a" / "pins.toml").read_text()
    assert not reader.connects(again)

    page("fedistill site init bank_c --dir bank_c --new-keys")
    assert reader.connects(reader.start_supernode("bank_c"))
    page("fedistill provision renew")
    assert next(todo, None) is None
    assert superlink.poll() is None
    assert front.poll() is None


def the_open_port_leads_to_no_control_api(reader: Reader) -> None:
    for path in ("/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/get-nodes"):
        assert reader.post(reader.superlink_port, path) != 404  # it is there, behind
        assert reader.post(reader.port, path) == 404
    for path in ("/v1/fleet/%2e%2e/control/list-runs", "//v1/fleet/pull-messages", "/docs"):
        assert reader.post(reader.port, path) == 404


def start_stranger(reader: Reader) -> subprocess.Popen[bytes]:
    """Somebody with the project's certificate and keys of their own."""
    reader.follow("fedistill site init stranger --dir stranger")
    (reader.folder / "stranger" / "ca.crt").write_bytes((reader.folder / "ca.crt").read_bytes())
    return reader.start_supernode("stranger")
