import dataclasses
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from fedistill.data import ProxySet, numbers
from fedistill.provision.coordinator import init, read_request, sign
from fedistill.provision.preflight import (
    Check,
    Status,
    check_disk,
    exit_code,
    local_checks,
)
from fedistill.provision.preflight_data import Data, data_checks
from fedistill.provision.preflight_server import server_checks
from fedistill.provision.project import Workshop
from fedistill.provision.site_folder import Membership, SiteFolder, init_site, join, pin
from fedistill.site.policy import Policy
from tests.provision.conftest import NOW, Federation, make_workshop

REPOSITORY = Path(__file__).parents[2]


def write_policy(folder: SiteFolder, **clauses: object) -> None:
    example = Policy.load(REPOSITORY / "clients" / "policy.toml")
    document = example.model_dump(mode="json", by_alias=True, exclude_none=True) | clauses
    folder.policy.write_text(tomli_w.dumps(document))
    folder.policy.chmod(0o600)


@pytest.fixture
def ready(federation: Federation) -> SiteFolder:
    """bank_a with all that it needs."""
    folder = federation.folders["bank_a"]
    join(folder, federation.kit("bank_a"), fingerprint=federation.made.fingerprint, now=NOW)
    for site in ("bank_b", "bank_c"):
        pin(folder, site, federation.made.registry.sites[site].fingerprint)
    write_policy(folder)
    return folder


def found(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def not_well(folder: SiteFolder, *, now: datetime = NOW) -> list[Check]:
    return [each for each in local_checks(folder, now=now)[0] if each.status is not Status.OK]


def test_a_ready_site_is_ready(ready: SiteFolder) -> None:
    checks, membership = local_checks(ready, now=NOW)
    assert membership is not None
    assert {check.status for check in checks} == {Status.OK}
    assert exit_code(checks) == 0


@pytest.mark.parametrize(("days", "code"), [(60, 0), (75, 1), (99.9, 1), (100.1, 2)])
def test_the_end_of_certificates_is_seen_coming(ready: SiteFolder, days: float, code: int) -> None:
    checks, _ = local_checks(ready, now=NOW + timedelta(days=days))
    assert exit_code(checks) == code
    worse = [check for check in checks if check.status is not Status.OK]
    expected = {"registration ends", "certificate authority ends"} if code else set()
    assert {check.name for check in worse} == expected
    assert all("provision renew" in check.mend for check in worse)


def test_an_empty_folder_says_what_to_do_first(tmp_path: Path) -> None:
    checks, membership = local_checks(SiteFolder(tmp_path / "none"), now=NOW)
    assert membership is None
    assert exit_code(checks) == 2
    mends = " ".join(check.mend for check in checks)
    assert "site init" in mends
    assert "site join" in mends


@pytest.mark.parametrize("name", ["identity.key", "supernode.key"])
def test_private_keys_that_others_read_or_that_are_none_are_errors(
    ready: SiteFolder, name: str
) -> None:
    path = ready.path / name
    path.chmod(0o604)
    (check,) = not_well(ready)
    assert (check.name, check.status) == ("keys", Status.ERROR)
    assert "mode 0604" in check.found
    assert check.mend == f"run chmod 600 '{path}'"
    path.chmod(0o600)
    path.write_text("nonsense")
    assert [check.name for check in not_well(ready)] == ["keys"]
    path.unlink()
    assert [check.name for check in not_well(ready)] == ["keys"]


def test_a_folder_or_policy_that_others_write_is_an_error(ready: SiteFolder) -> None:
    ready.path.chmod(0o755)
    assert [(c.name, c.status) for c in not_well(ready)] == [("permissions", Status.WARNING)]
    ready.path.chmod(0o777)
    assert [(c.name, c.status) for c in not_well(ready)] == [("permissions", Status.ERROR)]
    ready.path.chmod(0o700)
    ready.policy.chmod(0o666)
    (check,) = not_well(ready)
    assert check.mend == f"run chmod 600 '{ready.policy}'"


def test_a_missing_wrong_or_foreign_policy_is_an_error(ready: SiteFolder) -> None:
    write_policy(ready, site="bank_b")
    assert "must be 'bank_a'" in not_well(ready)[0].found
    write_policy(ready, delta=0.5)
    assert "delta" in not_well(ready)[0].found
    ready.policy.unlink()
    assert "nothing is released" in not_well(ready)[0].found


def test_a_certificate_that_somebody_swapped_is_an_error(ready: SiteFolder, tmp_path: Path) -> None:
    theirs = make_workshop(tmp_path / "theirs")
    init(theirs, now=NOW)
    ready.ca.write_bytes(theirs.ca.read_bytes())
    (check,) = not_well(ready)
    assert "is not the project's" in check.found
    ready.ca.write_text("nothing")
    assert [check.name for check in not_well(ready)] == ["certificate authority"]


def test_peers_that_nobody_compared_are_a_warning_and_others_an_error(ready: SiteFolder) -> None:
    ready.pins.write_text(f'[peers]\nbank_b = "{"0" * 64}"\n')
    assert [(c.name, c.status) for c in not_well(ready)] == [("pins", Status.ERROR)]
    ready.pins.unlink()
    (check,) = not_well(ready)
    assert check.status is Status.WARNING
    assert "bank_b, bank_c" in check.found
    ready.pins.write_text("peers = 1")
    assert "has no table [peers]" in not_well(ready)[0].found


@pytest.mark.parametrize(
    ("free", "status"), [(2 << 30, Status.OK), (1 << 29, Status.WARNING), (1 << 20, Status.ERROR)]
)
def test_a_full_disk_is_seen(tmp_path: Path, free: int, status: Status) -> None:
    assert check_disk(tmp_path, lambda _: free).status is status


class FakeServer(ThreadingHTTPServer):
    """Front and SuperLink in one, on loopback with TLS."""

    daemon_threads = True
    code = 2003
    ahead = 0.0


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"code": self.server.code}).encode()
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = datetime.now(UTC).timestamp() + self.server.ahead
        return super().date_time_string(now)

    def log_message(self, *_: object) -> None:
        pass


@dataclasses.dataclass
class Served:
    """A site of a project whose server is a `FakeServer`."""

    folder: SiteFolder
    membership: Membership
    server: FakeServer
    workshop: Workshop

    def checks(self, **days: float) -> dict[str, Check]:
        now = datetime.now(UTC) + timedelta(**days)
        return found(server_checks(self.folder, self.membership, now=now))


def serve(server: FakeServer, workshop: Workshop) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(workshop.server_certificate, workshop.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = FakeServer(("127.0.0.1", 0), Handler)
    text = f'name = "banks"\nhosts = ["127.0.0.1"]\nport = {server.server_port}\nsites = ["a"]'
    workshop, now = make_workshop(tmp_path / "coordinator", text), datetime.now(UTC)
    made = init(workshop, now=now)
    folder = SiteFolder(tmp_path / "a")
    init_site(folder, "a", now=now)
    made = sign(workshop, read_request(folder.request), now=now)
    joined = join(folder, made.kits["a"], fingerprint=made.fingerprint, now=now)
    serve(server, workshop)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Served(folder, joined.membership, server, workshop)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_as_the_kit_says_is_well(served: Served) -> None:
    checks = served.checks()
    assert {check.status for check in checks.values()} == {Status.OK}, checks
    assert set(checks) == {
        *("server's port", "TLS", "server's certificate ends", "clock", "registration"),
    }


def test_the_end_of_the_servers_certificate_is_seen_coming(served: Served) -> None:
    assert served.checks(days=350)["server's certificate ends"].status is Status.WARNING
    assert served.checks(days=366)["server's certificate ends"].status is Status.ERROR


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (2003, Status.OK, "knows this"),
        (2004, Status.ERROR, "does not know"),
        (1002, Status.ERROR, "no answer that could be understood"),
    ],
)
def test_the_registration_is_asked_for(
    served: Served, code: int, status: Status, said: str
) -> None:
    served.server.code = code
    check = served.checks()["registration"]
    assert (check.status, said in check.found) == (status, True)


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        (-60.0, Status.ERROR),
        (-2.0, Status.OK),
        (2.0, Status.OK),
        (60.0, Status.WARNING),
        (600.0, Status.ERROR),
    ],
)
def test_a_clock_that_flower_refuses_is_an_error(
    served: Served, ahead: float, status: Status
) -> None:
    served.server.ahead = ahead
    assert served.checks()["clock"].status is status


def test_a_closed_port_is_an_error_and_ends_the_checks(served: Served) -> None:
    nowhere = served.membership.model_copy(
        update={"server": served.membership.server.model_copy(update={"port": 1})}
    )
    (check,) = server_checks(served.folder, nowhere, now=datetime.now(UTC))
    assert (check.name, check.status) == ("server's port", Status.ERROR)
    assert "127.0.0.1:1" in check.found


def test_a_server_of_another_name_or_authority_is_refused(served: Served, tmp_path: Path) -> None:
    theirs = make_workshop(tmp_path / "theirs")
    init(theirs, now=datetime.now(UTC))
    served.folder.ca.write_bytes(theirs.ca.read_bytes())
    check = served.checks()["TLS"]
    assert check.status is Status.ERROR
    assert "certificate is refused" in check.found
    served.folder.ca.write_bytes(served.workshop.ca.read_bytes())
    other = served.membership.server.model_copy(update={"host": "127.0.0.2"})
    served.membership = served.membership.model_copy(update={"server": other})
    served.server.socket.getsockname()
    assert "registration" not in served.checks()


def test_a_server_without_tls_is_refused(served: Served) -> None:
    with FakeServer(("127.0.0.1", 0), Handler) as plain:
        thread = threading.Thread(target=plain.serve_forever, args=(0.05,))
        thread.start()
        where = served.membership.server.model_copy(update={"port": plain.server_port})
        served.membership = served.membership.model_copy(update={"server": where})
        check = served.checks()["TLS"]
        plain.shutdown()
        thread.join()
    assert (check.status, "speaks no TLS" in check.found) == (Status.ERROR, True)


@pytest.fixture
def data(tmp_path: Path, ready: SiteFolder) -> Data:
    """Thirty loans that fit, and the policy that approves their proxy set."""
    rows = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    proxy = ProxySet(schema=numbers(("income", "debt")), rows=rows)
    proxy.save(tmp_path / "proxy.bin")
    write_policy(ready, **{"proxy-sha256": [proxy.sha256], "rows-at-least": 30})
    lines = [f"{i},{-i},{'yes' if i % 2 else 'no'}" for i in range(30)]
    (tmp_path / "loans.csv").write_text("\n".join(["income,debt,defaulted", *lines]) + "\n")
    return Data(
        file=tmp_path / "loans.csv",
        proxy=tmp_path / "proxy.bin",
        label_column="defaulted",
        classes=("no", "yes"),
    )


def test_rows_that_fit_are_well(ready: SiteFolder, data: Data) -> None:
    checks = found(data_checks(ready, data))
    assert {check.status for check in checks.values()} == {Status.OK}
    assert "30 rows fit" in checks["data"].found


@pytest.mark.parametrize(
    ("old", "new", "status", "said"),
    [
        ("income,debt", "salary,debt", Status.ERROR, "missing 'income'"),
        ("29,-29,yes\n", "", Status.ERROR, "rows=29 must be at least rows-at-least=30"),
        ("29,-29,yes\n", "29,-29,yes\n7,x,no\n", Status.WARNING, "1 of 31 rows do not fit"),
        ("29,-29,yes\n", "29,-29,yes\n7,7,maybe\n", Status.WARNING, "1 of 31 rows do not fit"),
    ],
)
def test_rows_that_do_not_fit_are_said(
    ready: SiteFolder, data: Data, old: str, new: str, status: Status, said: str
) -> None:
    text = data.file.read_text()
    assert old in text
    data.file.write_text(text.replace(old, new))
    checks = data_checks(ready, data)
    assert checks[-1].status is status
    assert said in checks[-1].found


def test_a_proxy_set_that_nobody_approved_or_that_is_none_is_an_error(
    ready: SiteFolder, data: Data
) -> None:
    write_policy(ready, **{"rows-at-least": 30})
    assert data_checks(ready, data)[0].status is Status.ERROR
    data.proxy.write_bytes(b"nonsense")
    (check,) = data_checks(ready, data)
    assert (check.name, check.status) == ("proxy set", Status.ERROR)
