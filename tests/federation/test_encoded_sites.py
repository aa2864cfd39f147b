"""Federations whose proxy set has an encoder: end to end, refusals up front, policies."""

from dataclasses import replace

import pytest

from fedistill.errors import ConfigError, DataError, PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site, question_of
from fedistill.federation.up_front import prepare
from fedistill.site import LocalAgent
from tests.encoders import export_cnn, write_digits, write_linear
from tests.federation.conftest import run
from tests.small import make_config

QUICK = {"prune_ratio": 0.0, "quantize": "none", "phase_timeout": 60.0, "epsilon": 8.0}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("digits")
    return {
        "dataset": str(write_digits(folder / "digits.npz")),
        "onnx": str(export_cnn(folder / "cnn.onnx")),
    }


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [
        ("dp-probe", "onnx"),
        ("dp-probe", "tests.encoders:pooled"),
        ("votes", "onnx"),
        ("sharded", "onnx"),
        ("dp-sgd", "onnx"),
    ],
)
def test_a_federation_learns_images_through_an_encoder(tmp_path, digits, mechanism, kind) -> None:
    encoder = digits.get(kind, kind)
    config = make_config(
        tmp_path,
        dataset=digits["dataset"],
        encoder=encoder,
        mechanism=mechanism,
        float_noise="allow",
        cells=20,
        shards=20,
        **QUICK,
    )
    summary = run(config)
    for site in summary.privacy.sites.values():
        assert 7.99 < site.epsilon <= 8.0
    assert summary.metrics.ensemble.auc > 0.85


@pytest.mark.parametrize(
    ("encoder", "error", "words"),
    [
        ("/nowhere/cnn.onnx", DataError, "cannot be read"),
        ("no_such_package:encoder", ConfigError, "cannot be imported"),
        ("tests.encoders:of_changing_size", ConfigError, "for proxy row 0"),
        ("tests.encoders:not_a_number", ConfigError, "not finite"),
        ("tests.encoders:as_they_are", ConfigError, "fill missing values"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_unfit_encoder_is_refused_before_anything_runs(tmp_path, encoder, error, words) -> None:
    with pytest.raises(error, match=words):
        prepare(make_config(tmp_path, encoder=encoder))
    assert not (tmp_path / "run").exists()


def agent_of(config) -> LocalAgent:
    return open_site(config, "bank_a", run_folder(config, "1"), "1")


def allow(agent: LocalAgent, **clauses: object) -> LocalAgent:
    changed = agent.policy.model_copy(update=clauses)
    return replace(agent, policy=changed)


def test_an_import_path_that_the_policy_does_not_name_runs_no_code(tmp_path, digits) -> None:
    config = make_config(tmp_path, dataset=digits["dataset"], encoder="tests.encoders:pooled")
    agent = agent_of(config)
    assert agent.policy.encoders == ("", "tests.encoders:pooled")
    strict = allow(agent, encoders=("",))
    with pytest.raises(PolicyRefusal, match=r"encoders='tests.encoders:pooled' must be one of ''"):
        strict.labels(question_of(config, prepare(config)))
    assert not agent.ledger_path.exists()


def test_an_onnx_file_is_approved_with_the_proxy_set_and_only_with_it(tmp_path, digits) -> None:
    config = make_config(tmp_path, dataset=digits["dataset"], encoder=digits["onnx"])
    agent = agent_of(config)
    assert allow(agent, encoders=("",)).labels(question_of(config, prepare(config)))
    other = make_config(
        tmp_path,
        dataset=digits["dataset"],
        encoder=str(write_linear(tmp_path / "other.onnx", 64)),
    )
    with pytest.raises(PolicyRefusal, match="proxy-sha256"):
        agent.labels(question_of(other, prepare(other)))


def test_an_encoder_that_is_unfit_at_the_site_costs_nothing(tmp_path, digits) -> None:
    path = tmp_path / "encoder.onnx"
    config = make_config(tmp_path, dataset=digits["dataset"], encoder=str(write_linear(path, 64)))
    agent, question = agent_of(config), question_of(config, prepare(config))
    proxy_basis(prepare(make_config(tmp_path)).proxy)  # which a process keeps instead
    path.unlink()
    with pytest.raises(PolicyRefusal, match="cannot be read"):
        agent.labels(question)
    assert not agent.ledger_path.exists()
