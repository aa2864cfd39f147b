"""A package of somebody else adds a mechanism and a teacher; built from the page that shows how."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from fedistill.errors import PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.labels import LabelQuestion, probabilities
from fedistill.mechanisms import mechanism_named
from fedistill.mechanisms.dp_probe import DPProbe
from fedistill.mechanisms.mechanism import GROUP
from fedistill.privacy.receipts import read_receipts
from fedistill.site import LocalAgent, Policy
from fedistill.teachers import teacher_named
from tests.mechanisms.toy import ask, make_proxy, make_rows

PAGE = Path(__file__).parents[2] / "docs" / "write-a-mechanism.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, extra: str = "") -> None:
    """What pip leaves in site-packages: the module, and metadata with its entry points."""
    (module,) = blocks("python")
    declared = tomllib.loads(blocks("toml")[0])
    (name,) = declared["tool"]["setuptools"]["py-modules"]
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    project = declared["project"]
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(
        f"[{group}]\n" + "".join(f"{point} = {value}\n" for point, value in named.items())
        for group, named in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points + extra)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(tmp_path, monkeypatch)
    yield
    sys.modules.pop("class_shares", None)


def site_of(folder: Path, **clauses: object) -> LocalAgent:
    proxy = make_proxy(200)
    allowed: dict[str, object] = {
        "site": "bank_a",
        "population": "customers",
        "rows_at_least": 20,
        "total_epsilon": 2.0,
        "epsilon_per_release": 1.0,
        "delta": 1e-5,
        "mechanisms": ("class-shares",),
        "proxy_sha256": (proxy.sha256,),
    }
    return LocalAgent(
        run="1",
        policy=Policy.model_validate(allowed | clauses),
        rows=make_rows(500, 3),
        proxy=proxy,
        ledger_path=folder / "bank_a.ledger.db",
        receipts_path=folder / "receipts.jsonl",
    )


def question(agent: LocalAgent, mechanism: str = "class-shares", **changes) -> LabelQuestion:
    return ask(agent.proxy, mechanism, num_classes=3, **changes)


@pytest.mark.usefixtures("package")
def test_it_is_found_by_its_name() -> None:
    mechanism = mechanism_named("class-shares")
    assert type(mechanism).__module__ == "class_shares"
    assert mechanism.name == "class-shares"


def test_without_the_package_there_is_no_such_mechanism() -> None:
    with pytest.raises(PolicyRefusal, match="class-shares"):
        mechanism_named("class-shares")


@pytest.mark.usefixtures("package")
def test_a_site_that_allows_it_answers_with_it(tmp_path) -> None:
    """Charged, on a receipt, decoded again from the ledger: all as with our own."""
    agent = site_of(tmp_path, **tomllib.loads(blocks("toml")[1]))
    release = agent.labels(question(agent))
    shares = np.bincount(agent.rows.labels, minlength=3) / 500
    np.testing.assert_allclose(probabilities(release.log_odds)[7], shares, atol=0.1)
    (receipt,) = read_receipts(agent.receipts_path)
    assert 0.99 < receipt.epsilon <= 1.0
    again = agent.labels(question(agent))
    np.testing.assert_array_equal(again.codes, release.codes)
    assert again.parameters == release.parameters
    on_others = agent.evaluate(question(agent), make_proxy(50))
    np.testing.assert_allclose(on_others.log_odds[0], release.log_odds[0], atol=5e-4)


@pytest.mark.usefixtures("package")
def test_a_site_that_does_not_allow_it_refuses(tmp_path) -> None:
    agent = site_of(tmp_path, mechanisms=("dp-probe",))
    with pytest.raises(PolicyRefusal, match="mechanisms=class-shares"):
        agent.labels(question(agent))
    assert not agent.receipts_path.exists()


@pytest.mark.usefixtures("package")
def test_its_law_fits_the_ensemble(tmp_path) -> None:
    agent = site_of(tmp_path)
    release = agent.labels(question(agent))
    response = mechanism_named("class-shares").response(question(agent), release, agent.proxy)
    for values in vars(response).values():
        assert values.shape == proxy_basis(agent.proxy).eigenvalues.shape
        assert (values > 0).all()


@pytest.mark.usefixtures("package")
def test_its_teacher_is_trained_where_the_policy_allows_it(tmp_path) -> None:
    agent = site_of(tmp_path, mechanisms=("clipped",), teachers=("nearest",))
    asked = question(agent, "clipped", teacher="nearest")
    assert agent.labels(asked).codes.shape == (200, 2)
    with pytest.raises(PolicyRefusal, match="teachers"):
        site_of(tmp_path, mechanisms=("clipped",)).labels(asked)


@pytest.mark.parametrize("stated", ["unit = Unit.RECORD", "units = 'group'", "units = ()"])
def test_a_mechanism_that_does_not_say_whom_it_protects_is_refused(
    tmp_path, monkeypatch, stated: str
) -> None:
    """Of an older contract, or careless: refused before a site plans or charges anything."""
    install(tmp_path, monkeypatch, f"[{GROUP}]\ncareless = careless:Careless\n")
    (tmp_path / "careless.py").write_text(
        f"from fedistill.privacy.adjacency import Unit\n\nclass Careless:\n    {stated}\n"
    )
    agent = site_of(tmp_path, mechanisms=("careless",))
    with pytest.raises(PolicyRefusal, match=r"mechanism='careless': units=.* must be a tuple"):
        agent.labels(question(agent, "careless"))
    assert not agent.ledger_path.exists()
    sys.modules.pop("careless")


def test_without_the_package_there_is_no_such_teacher() -> None:
    with pytest.raises(PolicyRefusal, match="nearest"):
        teacher_named("nearest", 2)


def test_a_package_cannot_take_the_place_of_one_of_ours(tmp_path, monkeypatch) -> None:
    install(tmp_path, monkeypatch, "[fedistill.mechanisms]\ndp-probe = class_shares:ClassShares\n")
    assert "dp-probe" in entry_points(group="fedistill.mechanisms").names
    assert isinstance(mechanism_named("dp-probe"), DPProbe)
