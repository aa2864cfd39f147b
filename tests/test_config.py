import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedistill.config import RunConfig, describe_keys
from fedistill.errors import ConfigError

BANKS_3 = Path(__file__).parents[1] / "simulations" / "banks_3" / "pyproject.toml"


def test_defaults_are_valid_and_survive_the_flat_form():
    config = RunConfig()
    assert RunConfig.from_flat({}) == config
    assert RunConfig.from_flat(config.to_flat()) == config


def test_banks_3_states_every_key():
    app = tomllib.loads(BANKS_3.read_text())["tool"]["flwr"]["app"]
    assert set(app["config"]) == set(RunConfig().to_flat())
    assert RunConfig.from_flat(app["config"]).sites == ("bank_a", "bank_b", "bank_c")


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        RunConfig().epsilon = 2.0


def test_every_key_has_a_meaning():
    assert all(len(key.meaning) > 10 for key in describe_keys())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epslon": 1.0}, "unknown key 'epslon': did you mean 'epsilon'?"),
        ({"num_sites": 3}, "unknown key 'num_sites': did you mean 'num-sites'?"),
        ({"qqq": 3}, "unknown key 'qqq': `fedistill config` lists them all"),
        ({"epsilon": 0}, "epsilon=0 must be greater than 0: raise epsilon"),
        ({"epsilon": -1.5}, "epsilon=-1.5 must be greater than 0: raise epsilon"),
        ({"epsilon": 101}, "epsilon=101 must be at most 100: lower epsilon"),
        ({"epsilon": math.nan}, "epsilon=nan must be a finite number: change its value"),
        ({"epsilon": math.inf}, "epsilon=inf must be a finite number: change its value"),
        ({"epsilon": True}, "epsilon=true must be a number: change its value"),
        ({"epsilon": "1"}, "epsilon='1' must be a number: change its value"),
        ({"delta": 1e-2}, "delta=0.01 must be at most 0.001: lower delta"),
        ({"delta": 0}, "delta=0 must be greater than 0: raise delta"),
        (
            {"epsilon": 1, "budget-epsilon": 0.5},
            "budget-epsilon=0.5 must be 0 or at least epsilon=1.0: "
            "raise budget-epsilon or lower epsilon",
        ),
        ({"budget-epsilon": -1}, "budget-epsilon=-1 must be at least 0: raise budget-epsilon"),
        ({"num-sites": 0}, "num-sites=0 must be at least 1: raise num-sites"),
        ({"num-sites": 1001}, "num-sites=1001 must be at most 1000: lower num-sites"),
        ({"num-sites": 3.0}, "num-sites=3.0 must be a whole number: change its value"),
        ({"num-sites": True}, "num-sites=true must be a whole number: change its value"),
        (
            {"student": "forest"},
            "student='forest' must be 'mlp', 'cnn', 'resnet', 'vit', 'encoder' or an import path "
            "'package.module:factory': choose one of these",
        ),
        (
            {"augmentation": "affine"},
            "augmentation='affine' moves images, and student='mlp' learns rows of a table: set "
            "student to 'cnn', 'resnet' or 'vit', or augmentation to 'auto'",
        ),
        (
            {"student": "vit", "holdout-fraction": 0.2},
            "holdout-fraction=0.2 must be 0 with student='vit': sites run no transformer on "
            "held-out rows; set another student, or 0",
        ),
        ({"min-sites": 4}, "min-sites=4 must be at most num-sites=3: lower min-sites"),
        ({"min-sites": 0}, "min-sites=0 must be at least 1: raise min-sites"),
        ({"prune-ratio": 0.95}, "prune-ratio=0.95 must be at most 0.9: lower prune-ratio"),
        ({"proxy-fraction": 0}, "proxy-fraction=0 must be greater than 0: raise proxy-fraction"),
        ({"test-fraction": 0.9}, "test-fraction=0.9 must be less than 0.9: lower test-fraction"),
        (
            {"proxy-fraction": 0.5, "test-fraction": 0.5},
            "proxy-fraction=0.5 and test-fraction=0.5 must sum to less than 0.95: "
            "lower one of them",
        ),
        ({"probe-steps": 201}, "probe-steps=201 must be at most 200: lower probe-steps"),
        ({"sgd-steps": 0}, "sgd-steps=0 must be at least 1: raise sgd-steps"),
        (
            {"sgd-sampling-rate": 1.5},
            "sgd-sampling-rate=1.5 must be at most 1: lower sgd-sampling-rate",
        ),
        ({"sgd-clip": 0}, "sgd-clip=0 must be greater than 0: raise sgd-clip"),
        (
            {"float-noise": "yes"},
            "float-noise='yes' must be 'refuse' or 'allow': choose one of these",
        ),
        (
            {"quantize": "int4"},
            "quantize='int4' must be 'int8' or 'int8-dynamic' or 'int8-qat' or 'fp16' or 'none': "
            "choose one of these",
        ),
        (
            {"compression": "tiny"},
            "compression='tiny' must be 'custom' or 'light' or 'half' or 'sparse' or 'search': "
            "choose one of these",
        ),
        (
            {"prune-by": "random"},
            "prune-by='random' must be 'group-l1' or 'taylor' or 'unstructured': choose one of "
            "these",
        ),
        ({"max-bytes": -1}, "max-bytes=-1 must be at least 0: raise max-bytes"),
        (
            {"max-latency-ms": -0.5},
            "max-latency-ms=-0.5 must be at least 0: raise max-latency-ms",
        ),
        (
            {"quantize": "int8-dynamic", "holdout-fraction": 0.2},
            "holdout-fraction=0.2 must be 0 with quantize='int8-dynamic': sites run no such "
            "student on held-out rows; set quantize='int8', or 0",
        ),
        ({"rounds": 101}, "rounds=101 must be at most 100: lower rounds"),
        (
            {"secure-aggregation": 0},
            "secure-aggregation=0 must be true or false: change its value",
        ),
        ({"trust": "all"}, "trust='all' must be 'none' or 'secagg': choose one of these"),
        (
            {"ignore-columns": "id,,note"},
            "ignore-columns='id,,note' must be column names with commas between them: remove a",
        ),
        (
            {"partition": "quantile:"},
            "partition='quantile:' must be 'iid', 'quantile:COLUMN' or 'dirichlet:ALPHA': choose",
        ),
        *(
            (
                {"partition": f"dirichlet:{alpha}"},
                f"partition='dirichlet:{alpha}' must be 'dirichlet:ALPHA' with a number ALPHA "
                "above 0 and at most 1000: write for instance 'dirichlet:0.3'",
            )
            for alpha in ("", "0", "-1", "1000.5", "nan", "few")
        ),
        ({"encoder": "cnn.onnx"}, "encoder='cnn.onnx' must be an absolute path: write '/"),
        (
            {"encoder": "package.module"},
            "encoder='package.module' must be the full path of an ONNX file, an import path "
            "'package.module:factory' or 'self-supervised': write one of these",
        ),
        ({"dataset": ""}, "dataset='' must name a data set: give the name of a shipped set or a"),
        ({"dataset": 3}, "dataset=3 must be a string in quotes: change its value"),
        ({"dataset": "rows.csv"}, "dataset='rows.csv' must be an absolute path: write '/"),
        ({"output-dir": "out"}, "output-dir='out' must be an absolute path: write '/"),
        ({"ledger-dir": "./l"}, "ledger-dir='./l' must be an absolute path: write '/"),
        ({"site-names": "a,a,b"}, "site-names='a,a,b' must name each site differently: rename one"),
        ({"site-names": "a,../b"}, "site-names='a,../b' names '../b', and a site's name must be"),
        ({"seed": -1}, "seed=-1 must be at least 0: raise seed"),
        ({"seed": 2**32}, "seed=4294967296 must be less than 4294967296: lower seed"),
        ({"phase-timeout": 0}, "phase-timeout=0 must be greater than 0: raise phase-timeout"),
    ],
)
def test_bad_values_are_refused_by_key_value_and_bound(values, message):
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_flat(values)
    assert str(caught.value).startswith(message)


def test_a_whole_number_is_a_number():
    config = RunConfig.from_flat({"epsilon": 2})
    assert config.epsilon == 2.0
    assert isinstance(config.epsilon, float)


def test_the_budget_is_epsilon_unless_it_is_given():
    assert RunConfig(epsilon=0.5).budget == 0.5
    assert RunConfig(epsilon=0.5, budget_epsilon=2.0).budget == 2.0


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/analyst")
    config = RunConfig.from_flat({"dataset": "~/rows.npz", "output-dir": "~/run"})
    assert (config.dataset, config.output_dir) == ("/home/analyst/rows.npz", "/home/analyst/run")


@pytest.mark.parametrize(
    ("values", "sites"),
    [
        ({"num-sites": 2}, ("site_0", "site_1")),
        ({"num-sites": 2, "site-names": "a, b ,c"}, ("a", "b")),
        ({"num-sites": 4, "site-names": "a,b"}, ("a", "b", "site_2", "site_3")),
    ],
)
def test_sites_take_the_given_names_first(values, sites):
    assert RunConfig.from_flat(values).sites == sites


def test_columns_are_named_with_commas_between_them():
    config = RunConfig.from_flat({"ignore-columns": "id, free text ,note", "unit-column": "who"})
    assert config.ignored == ("id", "free text", "note")
    assert config.unit_column == "who"
    assert RunConfig().ignored == ()


@pytest.mark.parametrize("partition", ["iid", "quantile:age", "dirichlet:0.3", "dirichlet:1000"])
def test_every_form_of_partition_is_allowed(partition):
    assert RunConfig.from_flat({"partition": partition}).partition == partition


def test_a_site_column_decides_how_many_sites_there_are():
    assert RunConfig.from_flat({"site-column": "hospital", "min-sites": 4}).min_sites == 4


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([key.name for key in describe_keys()]),
        st.one_of(st.booleans(), st.integers(), st.floats(), st.text()),
    )
)
def test_any_mapping_gives_a_config_or_a_config_error(values):
    try:
        config = RunConfig.from_flat(values)
    except ConfigError:
        return
    assert RunConfig.from_flat(config.to_flat()) == config


def test_equal_configs_have_equal_digests_and_others_do_not():
    assert RunConfig(epsilon=1.0).sha256() == RunConfig.from_flat({"epsilon": 1}).sha256()
    assert RunConfig(epsilon=1.0).sha256() != RunConfig(epsilon=1.5).sha256()
