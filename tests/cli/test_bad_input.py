import psutil
import pytest

from fedistill import __version__
from fedistill.config import describe_keys


def test_version(fedistill):
    assert fedistill("--version").stdout == f"fedistill {__version__}\n"


def test_config_prints_every_key(fedistill):
    printed = fedistill("config")
    assert printed.returncode == 0
    assert all(key.name in printed.stdout for key in describe_keys())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-c", "epslon=1"], "fedistill: unknown key 'epslon': did you mean 'epsilon'?"),
        (["-c", "epsilon=0"], "fedistill: epsilon=0 must be greater than 0: raise epsilon"),
        (["-c", "delta=0.1"], "fedistill: delta=0.1 must be at most 0.001: lower delta"),
        (["--bogus"], "fedistill: No such option '--bogus'."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(fedistill, app, temporary, arguments, sentence):
    result = fedistill("simulate", app, *arguments)
    assert result.returncode == 2
    assert result.stderr == sentence + "\n"
    assert result.stdout == ""
    assert list(temporary.iterdir()) == []
    assert psutil.Process().children() == []


def test_a_data_set_that_cannot_be_read_is_bad_input(fedistill, app, temporary, tmp_path):
    result = fedistill("simulate", app, "-c", f"dataset={tmp_path}/missing.npz")
    assert result.returncode == 2
    assert "missing.npz" in result.stderr
    assert list(temporary.iterdir()) == []


def test_debug_adds_the_traceback(fedistill, app):
    result = fedistill("--debug", "simulate", app, "-c", "epsilon=0")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
