"""The encoder that a simulation trains itself: once for its images, and only for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedistill.config import RunConfig
from fedistill.data import ProxySet, numbers
from fedistill.errors import ConfigError, DataError
from fedistill.features import self_supervised
from fedistill.federation.own_encoder import own_encoder
from fedistill.federation.simulation import prepare_data


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProxySet:
    monkeypatch.setenv("FEDISTILL_HOME", str(tmp_path / "home"))
    rows = load_digits().data[:80].astype(np.float32)
    return ProxySet(schema=numbers(f"x{j}" for j in range(64)), rows=rows)


def test_it_is_trained_once_and_then_found(proxy: ProxySet, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = own_encoder(proxy, 2, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert path.parent == tmp_path / "home" / "encoders"
    assert not path.with_suffix(".checkpoint").exists()
    assert own_encoder(proxy, 2, lambda *_: pytest.fail("trained again")) == path


def test_other_images_or_settings_get_another(proxy: ProxySet) -> None:
    one_less = replace(proxy, rows=proxy.rows[1:])
    assert len({own_encoder(each, 1) for each in (proxy, one_less)} | {own_encoder(proxy, 2)}) == 3


def test_training_goes_on_where_it_was_stopped(
    proxy: ProxySet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = own_encoder(proxy, 3).read_bytes()
    monkeypatch.setenv("FEDISTILL_HOME", str(tmp_path / "other"))

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_encoder(proxy, 3, stop)
    told: list[int] = []
    resumed = own_encoder(proxy, 3, lambda done, total: told.append(done))
    assert told == [3]
    assert resumed.read_bytes() == whole


def test_columns_that_are_no_images_are_refused_before_training(
    proxy: ProxySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervised, "_begin", lambda *_: pytest.fail("trained"))
    table = ProxySet(schema=numbers("abc"), rows=np.zeros((80, 3), np.float32))
    with pytest.raises(DataError, match="rows of 3 columns must be square images"):
        own_encoder(table, 1)


def test_a_folder_that_cannot_be_written_is_named(
    proxy: ProxySet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDISTILL_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="FEDISTILL_HOME"):
        own_encoder(proxy, 1)


def test_the_run_sees_its_proxy_set_through_it(proxy: ProxySet, tmp_path: Path) -> None:
    digits = load_digits()
    path = tmp_path / "digits.npz"
    np.savez(path, X=digits.data[:600], y=digits.target[:600])
    config = RunConfig(dataset=str(path), encoder="self-supervised", encoder_epochs=1)
    first = prepare_data(config).proxy
    assert first.encoder is not None
    assert Path(first.encoder.path).parent == tmp_path / "home" / "encoders"
    assert prepare_data(config.model_copy(update={"seed": 5})).proxy.sha256 == first.sha256
    other = config.model_copy(update={"encoder_epochs": 2})
    assert prepare_data(other).proxy.sha256 != first.sha256


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {
                "encoder": "self-supervised",
                "proxy-path": "/p",
                "test-path": "/t.csv",
                "classes": "a,b",
            },
            "publish it with the proxy set",
        ),
        ({"encoder": "my.module:make", "student": "encoder"}, "must be a file"),
        ({"cross-fit-folds": 1}, "cross-fit-folds=1 must be 0 or at least 2"),
        ({"encoder": "selfsupervised"}, "'self-supervised'"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RunConfig.from_flat(keys)
