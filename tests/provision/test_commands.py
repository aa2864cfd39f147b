"""The commands as a user types them, in this process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedistill.cli import main
from fedistill.provision import flower
from fedistill.provision.fingerprints import grouped
from fedistill.provision.project import Workshop
from fedistill.provision.registry import Registry
from tests.provision.conftest import SITES, make_workshop

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `fedistill` with arguments: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedistill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A project file in the working directory."""
    workshop = make_workshop(tmp_path / "here")
    monkeypatch.chdir(workshop.folder)
    monkeypatch.setenv("FEDISTILL_HOME", str(tmp_path / "home"))
    return workshop


def told(text: str) -> str:
    """The fingerprint that a command printed."""
    return text.split("fingerprint of ")[1].split("\n")[1].strip()


@pytest.fixture
def signed(here: Workshop, run: Run) -> tuple[str, dict[str, str]]:
    """A project with three signed sites: fingerprints of the project and of the sites."""
    project = told(run("provision", "init")[1])
    sites = {site: told(run("site", "init", site, "--dir", site)[1]) for site in SITES}
    for site, typed in sites.items():
        code, out, err = run("provision", "sign", f"{site}/request.json", "--fingerprint", typed)
        assert (code, err) == (0, ""), out
    return project, sites


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What a SuperLink that agrees to everything was asked."""
    asked: list[tuple[str, ...]] = []

    def agree(_: Workshop, site: str, *arguments: str) -> dict[str, object]:
        asked.append((arguments[0], site, arguments[1]))
        return {"success": True, "node-id": 100 + len(asked)}

    monkeypatch.setattr(flower, "_flwr", agree)
    return asked


def test_status_says_who_takes_part(
    signed: tuple[str, dict[str, str]], run: Run, superlink: list[tuple[str, ...]]
) -> None:
    project, sites = signed
    assert run("provision", "register")[1] == "".join(f"registered {site}\n" for site in SITES)
    assert run("provision", "register")[1] == "nothing to change\n"
    assert run("provision", "revoke", "bank_c")[0] == 0
    assert superlink[-1] == ("unregister", "bank_c", "103")
    document = json.loads(run("provision", "status", "--format", "json")[1])
    assert grouped(document["fingerprint"]) == project
    listed = {
        each["site"]: (grouped(each["fingerprint"]), each["state"]) for each in document["sites"]
    }
    states = ("signed", "signed", "revoked")
    assert listed == {site: (sites[site], state) for site, state in zip(SITES, states, strict=True)}
    assert [each["superlink"] for each in document["sites"]] == [*["registered"] * 2, "removed"]
    table = run("provision", "status")[1]
    assert all(site in table for site in SITES)


def test_replaced_and_expired_sites_are_removed_by_register(
    signed: tuple[str, dict[str, str]],
    here: Workshop,
    run: Run,
    superlink: list[tuple[str, ...]],
) -> None:
    run("provision", "register")
    run("site", "init", "bank_a", "--dir", "bank_a", "--new-keys")
    options = ("--fingerprint", signed[1]["bank_a"], "--replace")
    assert run("provision", "sign", "bank_a/request.json", *options)[0] == 0
    registry = Registry.load(here.registry)
    ended = registry.sites["bank_b"].model_copy(update={"expires": registry.sites["bank_b"].signed})
    registry.with_site(ended).save(here.registry)
    code, out, _ = run("provision", "register")
    assert (code, out) == (0, "removed bank_a\nremoved bank_b\nregistered bank_a\n")
    gone = [("unregister", "bank_a", "101"), ("unregister", "bank_b", "102")]
    assert superlink[3:5] == gone
    assert superlink[5][:2] == ("register", "bank_a")
    run("provision", "renew")
    code, _, err = run("provision", "register")
    assert code == 2
    assert "site='bank_b': its SuperNode key was removed" in err
    assert len(superlink) == 6


def test_a_registry_from_another_machine_is_enough_for_the_server(
    signed: tuple[str, dict[str, str]],
    here: Workshop,
    run: Run,
    superlink: list[tuple[str, ...]],
    tmp_path: Path,
) -> None:
    server = tmp_path / "server"
    server.mkdir()
    project = ("--project", str(server / "project.toml"))
    for asked in (3, 4):
        for name in ("project.toml", "ca.crt", "registry.json"):
            (server / name).write_bytes((here.folder / name).read_bytes())
        assert run("provision", "register", *project)[0] == 0
        assert len(superlink) == asked  # three registrations, then one removal
        assert run("provision", "status", *project)[0] == 0
        if asked == 3:
            code, out, _ = run("provision", "revoke", "bank_c")
            assert (code, "until then the site may still connect" in out) == (0, True)
    assert superlink[-1] == ("unregister", "bank_c", "103")
    connection = (server / "flower" / "config.toml").read_text()
    assert str(server / "ca.crt") in connection


def test_a_revocation_without_a_superlink_says_that_it_is_half_done(
    signed: tuple[str, dict[str, str]],
    here: Workshop,
    run: Run,
    superlink: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("provision", "register")
    monkeypatch.undo()
    monkeypatch.chdir(here.folder)
    code, _, err = run("provision", "revoke", "bank_c")
    assert code == 1
    assert "bank_c is revoked here, but may still connect" in err
    assert "start the SuperLink, then run fedistill provision register on its machine" in err
    (left,) = json.loads(run("provision", "status", "--format", "json")[1])["sites"][2:]
    assert (left["state"], left["superlink"]) == ("revoked", "registered")
    assert not here.kit("bank_c").exists()


def test_a_request_is_signed_only_with_the_fingerprint_that_its_people_read(
    here: Workshop, run: Run
) -> None:
    run("provision", "init")
    run("site", "init", "bank_a", "--dir", "bank_a")
    code, out, err = run("provision", "sign", "bank_a/request.json")
    assert (code, told(out) in err) == (2, False)
    assert "--fingerprint is missing" in err
    code, _, err = run("provision", "sign", "bank_a/request.json", "--fingerprint", "0" * 64)
    assert code == 2
    assert "must be the fingerprint of bank_a's request" in err
    assert Registry.load(here.registry).sites == {}


def test_a_site_joins_pins_and_checks(signed: tuple[str, dict[str, str]], run: Run) -> None:
    project, sites = signed
    code, out, err = run(
        *("site", "join", "kits/bank_a.kit.zip", "--fingerprint", project, "--dir", "bank_a")
    )
    assert (code, err) == (0, "")
    assert f"not compared yet: bank_b\n  {sites['bank_b']}" in out
    assert run("site", "pin", "bank_b", sites["bank_b"], "--dir", "bank_a")[0] == 0
    assert run("site", "pin", "bank_b", sites["bank_c"], "--dir", "bank_a")[0] == 2
    code, out, _ = run("site", "preflight", "--offline", "--dir", "bank_a", "--format", "json")
    checks = {check["name"]: check["status"] for check in json.loads(out)["checks"]}
    assert code == 2  # no policy
    assert checks["policy"] == "error"
    assert checks["pins"] == "warning"
    code, out, _ = run("site", "preflight", "--offline", "--dir", "bank_a")
    assert "-> write one; clients/policy.toml is an example" in " ".join(out.split())


def test_the_default_folder_is_in_fedistill_home(here: Workshop, run: Run, tmp_path: Path) -> None:
    assert run("site", "init", "bank_a")[0] == 0
    assert (tmp_path / "home" / "site" / "request.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("provision", "init", "nowhere.toml"), "nowhere.toml cannot be read (No such file"),
        (("provision", "status"), "ca.crt cannot be read"),
        (("provision", "renew"), "project.key is missing: run fedistill provision init"),
        (("provision", "register"), "registry.json cannot be read"),
        (("provision", "sign", "none.json"), "request none.json cannot be read"),
        (("site", "init", "../x"), "SITE='../x' must have 1 to 63 letters"),
        (("site", "join", "none.zip"), "kit none.zip cannot be read"),
        (("site", "pin", "bank_b", "00"), "site.toml is missing: run fedistill site join"),
        (("site", "preflight", "--data", "x.csv"), "--data needs --proxy"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    here: Workshop, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_an_unwritable_folder_is_said(here: Workshop, run: Run) -> None:
    (here.folder / "file").write_text("")
    code, _, err = run("site", "init", "bank_a", "--dir", "file/site")
    assert code == 2
    assert "cannot be written (Not a directory)" in err
